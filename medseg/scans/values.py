"""This file mends values that are not finite, the same way for scans and for pictures."""

from __future__ import annotations

import logging
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from medseg.errors import MedsegError

_log = logging.getLogger(__name__)
_MOST_NON_FINITE = 0.01
"""Share of all values; beyond it something is wrong with the file, not with a few voxels."""


def mend_non_finite(path: Path, values: Float[Tensor, "*shape"], what: str = "voxels") -> None:
    """Set values that are NaN or infinite to the least finite one, in place; that is logged.

    Args:
        path: the file, for messages.
        values: what was read.
        what: what its values are called in messages.

    Raises:
        MedsegError: 1 % or more are not finite.
    """
    finite = torch.isfinite(values)
    missing = int((~finite).sum())
    if missing >= _MOST_NON_FINITE * finite.numel():
        raise MedsegError(
            f"{path} must have finite values in at least 99 % of its {what}, got {missing} of {finite.numel()} "
            "that are NaN or infinite; export it again"
        )
    if missing:
        lowest = values[finite].min().item()
        values[~finite] = lowest
        _log.warning(
            "%s has %d %s that are NaN or infinite; they are set to its minimum %g", path, missing, what, lowest
        )
