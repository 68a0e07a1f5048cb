"""This file shows what the clear view does to pictures, before anything is trained on them."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from medseg.errors import MedsegError
from medseg.files import require_folder
from medseg.prepare.chain import prepare_case
from medseg.prepare.clear_view import clear_view, require_steps
from medseg.prepare.picture import picture_transforms
from medseg.review.before_after import BeforeAfter, before_after_picture
from medseg.scans.folders import find_cases

MOST_PICTURES = 12
"""Rows of one page that can still be compared by eye."""
SIDE = 320
"""Shorter side (pixels) at which pictures are shown, the default of the picture configs."""

_log = logging.getLogger(__name__)


def show_clear_view(images: Path, out: Path, *, steps: Sequence[str]) -> dict[str, Any]:
    """Draw up to twelve pictures of a folder before and after; of several frames the first.

    Args:
        images: folder or file.
        out: receives `clear_view.png`.
        steps: of `medseg.prepare.clear_view`, in their order.

    Returns:
        `lines` for the terminal, `written`, `failed` cases.

    Raises:
        MedsegError: no picture can be used, or a step does not exist.
    """
    require_steps(steps)
    require_folder(out, "-o")
    listing = find_cases(images, skip=(out,))
    places = np.unique(np.linspace(0, len(listing.cases) - 1, MOST_PICTURES).round().astype(int))
    transforms = picture_transforms(resize=SIDE)
    rows: list[BeforeAfter] = []
    failed = dict(listing.problems)
    for case in (listing.cases[place] for place in places):
        try:
            before = np.moveaxis(np.asarray(prepare_case(case, transforms)["image"])[..., 0], 0, -1)
        except MedsegError as error:
            failed[case.case_id] = str(error)
            _log.error(str(error))
            continue
        rows.append(BeforeAfter(case.case_id, before, clear_view(before, steps)))
    if not rows:
        raise MedsegError(f"{images} must hold a picture that can be used, got none; see above")
    before_after_picture(rows, out / "clear_view.png", steps=steps)
    return {"lines": [f"{len(rows)} pictures: {out / 'clear_view.png'}"], "written": str(out), "failed": failed}
