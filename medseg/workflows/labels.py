"""This file reads the labels beside scans and pictures for training and evaluation, and says what their values mean."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from jaxtyping import Integer
from monai.data import MetaTensor

from medseg import config as sections
from medseg.naming.classes import ClassEntry
from medseg.scans.arrays import read_grid
from medseg.scans.cases import Case
from medseg.scans.grids import require_same_grid, require_same_size
from medseg.scans.names import is_picture
from medseg.scans.readers import grid_of, read_labels
from medseg.scans.schemes import LabelScheme
from medseg.scans.shipped_schemes import load_scheme
from medseg.workflows import parts


def scheme_of(naming: sections.Naming, found: LabelScheme | None) -> LabelScheme | None:
    """What stored values and colours of labels mean: by the user's file, else as the data set says (`found`)."""
    return load_scheme(naming.classes) if naming.classes else found


def meaning_of(scheme: LabelScheme | None) -> list[ClassEntry]:
    """The classes of a scheme, background left out; none without one."""
    return [ClassEntry(value, name, colour) for value, name, colour in scheme.classes if value > 0] if scheme else []


def labels_of(
    path: Path, case: Case, prepare: sections.Prepare, scheme: LabelScheme | None
) -> Integer[np.ndarray, "i j k"]:
    """The label of a case where its prepared image lies, -1 where nobody labelled.

    Raises:
        MedsegError: it cannot be read, or does not fit the image.
    """
    labels: MetaTensor = read_labels(path, scheme)
    grid = read_grid(case.image, case.pick)
    if not is_picture(case.image):
        require_same_grid(grid, grid_of(labels))
    else:
        if case.pick.frame is not None and labels.shape[3] > 1:
            labels = MetaTensor(labels.as_tensor()[..., case.pick.frame : case.pick.frame + 1], affine=labels.affine)
        frames = 1 if case.pick.frame is not None else grid.shape[2]
        require_same_size(path, (*grid.shape[:2], frames), tuple(labels.shape[1:]))
    return np.asarray(parts.on_prepared_grid(labels, case, prepare)[0]).astype(np.int16)
