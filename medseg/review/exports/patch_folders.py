"""This file writes patches in the folders that vessel patches are trained from elsewhere.

    imgs/NAME.png                  grey values in 8 bits
    gt/NAME.mat                    `imageData`: 1 vessel, 0 no vessel; only where that is known of every pixel
    gt_png/NAME.png                the same, vessel white
    all.txt                        every NAME
    labelled_train.txt, labelled_test.txt, unlabelled_train.txt     those with `gt`, by the split, and those without
    npy/CASE_SIZE_img.npy          patches with a vessel, float32 [n, row, column], in the order of their names
    npy/CASE_SIZE_label.npy        their labels, uint8
    npy/CASE_SIZE_empty.npy        patches that are known to hold none
    npy/CASE_SIZE_unlabelled.npy   patches of which that is not known

The first are the Potsdam-style layout of STEGO's forks, the stacks those of Vessel-CAPTCHA. SIZE is the side of a patch
in pixels.
"""

from __future__ import annotations

import io
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import scipy.io
from jaxtyping import Float, Shaped, UInt8
from PIL import Image

from medseg.files import write_text
from medseg.review.exports.folders import replacing_folder
from medseg.scans.picture_arrays import MATLAB_LABEL

LISTS = ("all", "labelled_train", "labelled_test", "unlabelled_train")
_FOLDERS = ("imgs", "gt", "gt_png", "npy")
_MATLAB_TEXT = b"MATLAB 5.0 MAT-file"
_MATLAB_TEXT_BYTES = 116
"""Of the free text at the head of a file, in which SciPy writes the time: equal patches shall be equal files."""


@dataclass(frozen=True)
class Patch:
    """A square of a slice.

    Attributes:
        name: of its files.
        values: grey values.
        shown: the same in 8 bits.
        labels: 1 vessel, 0 no vessel; None where that is not known of every pixel.
    """

    name: str
    values: Float[np.ndarray, "h w"]
    shown: UInt8[np.ndarray, "h w"]
    labels: UInt8[np.ndarray, "h w"] | None


@dataclass(frozen=True)
class CasePatches:
    """The patches of a case.

    Attributes:
        case: its name.
        size: side of a patch in pixels.
        is_for_testing: whether the case was given for testing.
        patches: all of them.
    """

    case: str
    size: int
    is_for_testing: bool
    patches: Iterable[Patch]


def write_patches(folder: Path, cases: Iterable[CasePatches]) -> dict[str, int]:
    """Write patches and their lists, in the place of those that were written before.

    Returns:
        How many names each of `LISTS` has.

    Raises:
        MedsegError: the folder holds files that no export wrote.
    """
    names: dict[str, list[str]] = {name: [] for name in LISTS}
    with replacing_folder(folder) as beside:
        for name in _FOLDERS:
            (beside / name).mkdir()
        for case in cases:
            stacks: dict[str, list[Shaped[np.ndarray, "h w"]]] = {}
            for patch in case.patches:
                Image.fromarray(patch.shown).save(beside / "imgs" / f"{patch.name}.png")
                names["all"].append(patch.name)
                if patch.labels is None:
                    names["unlabelled_train"].append(patch.name)
                    stacks.setdefault("unlabelled", []).append(patch.values)
                    continue
                names["labelled_test" if case.is_for_testing else "labelled_train"].append(patch.name)
                (beside / "gt" / f"{patch.name}.mat").write_bytes(_mat(patch.labels))
                Image.fromarray(patch.labels * np.uint8(255)).save(beside / "gt_png" / f"{patch.name}.png")
                has_vessel = bool(patch.labels.any())
                stacks.setdefault("img" if has_vessel else "empty", []).append(patch.values)
                if has_vessel:
                    stacks.setdefault("label", []).append(patch.labels)
            for kind, stack in stacks.items():
                np.save(beside / "npy" / f"{case.case}_{case.size}_{kind}.npy", np.stack(stack))
        for name, listed in names.items():
            write_text(beside / f"{name}.txt", "".join(f"{entry}\n" for entry in listed))
    return {name: len(listed) for name, listed in names.items()}


def _mat(labels: UInt8[np.ndarray, "h w"]) -> bytes:
    stream = io.BytesIO()
    scipy.io.savemat(stream, {MATLAB_LABEL: labels}, do_compression=True)
    return _MATLAB_TEXT.ljust(_MATLAB_TEXT_BYTES) + stream.getvalue()[_MATLAB_TEXT_BYTES:]
