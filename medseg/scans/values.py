"""This file mends values that are no numbers, the same way for scans and for pictures, and refuses infinite ones."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
from jaxtyping import Float

from medseg.errors import MedsegError

_log = logging.getLogger(__name__)
_MOST_NAN = 0.01
"""Share of all values; beyond it something is wrong with the file, not with a few voxels."""


def mend_non_finite(path: Path, values: Float[np.ndarray, "*shape"], what: str = "voxels") -> None:
    """Set values that are NaN to the least finite one, in place; that is logged.

    Args:
        path: the file, for messages.
        values: what was read.
        what: what its values are called in messages.

    Raises:
        MedsegError: 1 % or more are NaN, or any is infinite.
    """
    finite = np.isfinite(values)
    missing = int(finite.size - np.count_nonzero(finite))
    if not missing:
        return
    infinite = int(np.count_nonzero(np.isinf(values)))
    require_finite(path, missing - infinite, infinite, finite.size, what)
    lowest = values[finite].min()
    values[~finite] = lowest
    _log.warning("%s has %d %s that are NaN; they are set to its minimum %g", path, missing, what, lowest)


def require_finite(path: Path, nan: int, infinite: int, count: int, what: str) -> None:
    """Refuse a file with any infinite value, or with too many that are NaN.

    A NaN is how programs write "nothing is known here". An infinite value is an overflow or a division by zero: what
    was there is lost, and how bright it was meant to be cannot be guessed.

    Args:
        path: the file, for messages.
        nan: how many values are NaN.
        infinite: how many are infinite.
        count: how many there are.
        what: what they are called in messages.

    Raises:
        MedsegError: so it is.
    """
    if infinite:
        raise MedsegError(
            f"{path} must hold finite values, got {infinite} {what} that are infinite; replace them, for example by 0, "
            "or export it again"
        )
    if nan >= _MOST_NAN * count:
        raise MedsegError(
            f"{path} must have a value in at least 99 % of its {what}, got {nan} of {count} that are NaN; "
            "export it again"
        )


def require_contrast(path: Path, lowest: float, highest: float) -> None:
    """Refuse a volume with the same value everywhere.

    Raises:
        MedsegError: so it is.
    """
    if lowest == highest:
        raise MedsegError(f"{path} must show something, got {highest:g} in every voxel; choose another scan")
