"""This file takes one frame out of a sample, so that what a cine gets can be brought back one frame after the other."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from monai.data import MetaTensor
from monai.utils import TraceKeys


def one_frame(sample: Mapping[str, Any], index: int) -> dict[str, Any]:
    """Give the sample of one frame: its image and region, and the facts with its sector alone.

    `chain.invert` brings values of this frame back as it would those of the whole cine, because nothing that is done to
    pictures mixes frames.

    Args:
        sample: of a picture, its last axis the frame.
        index: of the frame, from 0.
    """
    image: MetaTensor = sample["image"]
    steps = [_of_one_frame(step, index) for step in image.applied_operations]
    values = image.as_tensor()[..., index : index + 1]
    facts = dict(sample["facts"])
    if "sectors" in facts:
        facts["sectors"] = [facts["sectors"][index]]
    return {
        **sample,
        "image": MetaTensor(values, affine=image.affine, applied_operations=steps),
        "region": sample["region"][..., index : index + 1],
        "facts": facts,
    }


def _of_one_frame(step: Mapping[str, Any], index: int) -> dict[str, Any]:
    """A recorded step whose stored grid has one frame, and the sector of that frame."""
    *plane, _ = step[TraceKeys.ORIG_SIZE]
    extra = step[TraceKeys.EXTRA_INFO]
    if "sectors" in extra:
        extra = {**extra, "sectors": [extra["sectors"][index]]}
    return {**step, TraceKeys.ORIG_SIZE: (*plane, 1), TraceKeys.EXTRA_INFO: extra}
