"""This file writes what a picture gets, one frame after the other: a long cine needs the memory of one full frame.

Class probabilities are on the prepared grid, where all frames of a cine are small enough to be kept. Labels and maps at
the picture's own size exist one frame at a time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Integer, Shaped, UInt8

from medseg.prepare.chain import invert
from medseg.prepare.frames import one_frame
from medseg.prepare.overlays import cleaned_frame
from medseg.prepare.sector import Sector
from medseg.progress import track
from medseg.reconstruction.frames import smooth_frame, smooth_frames
from medseg.reconstruction.pictures import likeliest, picture_shares
from medseg.reconstruction.uncertainty import Agreement
from medseg.scans.pictures import iterate_frames
from medseg.scoring.areas import count_pixels
from medseg.workflows.results import CaseFiles, FrameFiles


@dataclass(frozen=True)
class Answers:
    """What was predicted of a picture.

    Attributes:
        probabilities: of each class by each method, on the prepared grid.
        agreement: of all that was asked.
        main: the method whose masks become the result.
        values: value of each class.
        steps: of refinement.
        inside: by refine step the values of the class that it finds and of the class that this lies in.
    """

    probabilities: Mapping[str, Float[np.ndarray, "c i j n"]]
    agreement: Agreement
    main: str
    values: Sequence[int]
    steps: Sequence[tuple[str, Mapping[str, float]]]
    inside: Mapping[str, tuple[int, int]] = field(default_factory=dict)

    def shares(self, classes: Float[np.ndarray, "c i j n"], sample: Mapping[str, Any]) -> Float[np.ndarray, "c1 i j n"]:
        """Refined shares of background and classes in a picture or one frame of it, see `picture_shares`."""
        places = {
            step: (self.values.index(value), self.values.index(host)) for step, (value, host) in self.inside.items()
        }
        image, region = (np.asarray(sample[name]) for name in ("image", "region"))
        return picture_shares(classes, image, self.steps, region=region, inside=places)

    def uncertainty(
        self, labels: Integer[np.ndarray, "i j n"], *, slices: slice = slice(None)
    ) -> Float[np.ndarray, "i j n"]:
        """How unsure the labels are; what a step found inside an organ is as unsure as the organ, which was asked."""
        for value, host in self.inside.values():
            labels = np.where(labels == value, host, labels)
        return self.agreement.uncertainty(labels, self.values, slices=slices)


def write_frames(
    target: CaseFiles, sample: Mapping[str, Any], answers: Answers, counted: Sequence[int]
) -> tuple[list[Path], Integer[np.ndarray, "n c"]]:
    """Write masks, looks, uncertainty and region of every frame.

    Args:
        target: where to.
        sample: the prepared picture.
        answers: what was predicted of it.
        counted: class values whose pixels are counted.

    Returns:
        The files, and the pixels of each class in each frame.
    """
    count = sample["image"].shape[3]
    pixels = np.zeros((count, len(counted)), np.int64)
    with target.open_frames(count) as files:
        numbers = track(range(count), f"{target.case_id}: frames")
        for index, picture in zip(numbers, iterate_frames(target.source, target.pick), strict=True):
            frame = one_frame(sample, index)
            of_frame = {name: _of_frame(part, index, answers.steps) for name, part in answers.probabilities.items()}
            labels = _write_masks(files, index, frame, of_frame, answers)
            files.looks(index, labels, without_names(picture, frame["facts"]))
            pixels[index] = count_pixels(labels, counted)
    return files.written, pixels


def between_frames(
    classes: Float[np.ndarray, "c i j n"], steps: Sequence[tuple[str, Mapping[str, float]]]
) -> Float[np.ndarray, "c i j n"]:
    """What neighbouring frames say of each other, where that is asked for."""
    for name, numbers in steps:
        if name == "frames":
            classes = smooth_frames(classes, **numbers)
    return classes


def _of_frame(
    classes: Float[np.ndarray, "c i j n"], index: int, steps: Sequence[tuple[str, Mapping[str, float]]]
) -> Float[np.ndarray, "c i j 1"]:
    """One frame of what `between_frames` gives."""
    numbers = next((numbers for name, numbers in steps if name == "frames"), {"sd_frames": 0.0})
    return smooth_frame(classes, index, **numbers)


def _write_masks(
    files: FrameFiles,
    index: int,
    frame: Mapping[str, Any],
    classes: Mapping[str, Float[np.ndarray, "c i j 1"]],
    answers: Answers,
) -> UInt8[np.ndarray, "h w"]:
    """Masks, uncertainty and region of one frame; the labels of the main method."""
    region = np.asarray(frame["region"]).astype(np.uint8)
    inside = _stored(region, frame, nearest=True)[0]
    files.labels("region", index, inside[..., 0])
    found = np.zeros_like(inside)
    for name, probabilities in classes.items():
        shares = answers.shares(probabilities, frame)
        labels = likeliest(shares, answers.values, lambda share: _stored(share, frame, nearest=False)) * inside
        files.labels("seg" if name == answers.main else f"comparison/{name}", index, labels[..., 0])
        if name == answers.main:
            found, kept = labels, likeliest(shares, answers.values) * region[0]
            uncertain = answers.uncertainty(kept, slices=slice(index, index + 1)) * region[0]
            files.share("uncertainty", index, (_stored(uncertain[None], frame, nearest=False)[0] * inside)[..., 0])
    return found[..., 0]


def without_names(picture: Float[np.ndarray, "h w c"], facts: Mapping[str, Any]) -> Float[np.ndarray, "h w c"]:
    """A frame as it may leave the house: an ultrasound without the names that are burnt in outside its sector.

    Args:
        picture: as it is stored.
        facts: of its preparation; those of an ultrasound hold its sector.
    """
    if "sectors" not in facts:
        return picture
    sector = facts["sectors"][0]
    shown = picture[..., 0] if picture.shape[2] == 1 else picture
    return cleaned_frame(shown, None if sector is None else Sector.from_dict(sector)).reshape(picture.shape)


def _stored(
    values: Shaped[np.ndarray, "c i j 1"], frame: Mapping[str, Any], *, nearest: bool
) -> Shaped[np.ndarray, "c h w 1"]:
    return invert(torch.from_numpy(np.ascontiguousarray(values)), frame, nearest=nearest)
