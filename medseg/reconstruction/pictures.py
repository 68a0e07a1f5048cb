"""This file turns class probabilities of pictures into labels, in which every pixel has the likeliest class.

Class probabilities leave out the background (value 0); what they lack to 1 is its probability.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8

from medseg.reconstruction.dense_crf import dense_crf

_LEAST = 1e-6


def label_pictures(
    classes: Float[np.ndarray, "c h w n"],
    values: Sequence[int],
    pictures: Float[np.ndarray, "3 h w n"],
    steps: Sequence[tuple[str, Mapping[str, float]]],
) -> UInt8[np.ndarray, "h w n"]:
    """Label every pixel with its likeliest class.

    Args:
        classes: probability of each class, background left out.
        values: value of each class.
        pictures: display values 0 to 1.
        steps: `crf` with its numbers, see `medseg.reconstruction.dense_crf`, or none.
    """
    numbers: dict[str, Any] | None = next((dict(numbers) for name, numbers in steps if name == "crf"), None)
    if numbers is not None and "iterations" in numbers:
        numbers["iterations"] = int(numbers["iterations"])
    table = np.array([0, *values], dtype=np.uint8)
    labels = np.zeros(classes.shape[1:], np.uint8)
    for index in range(classes.shape[3]):
        background = 1 - classes[..., index].sum(0, keepdims=True)
        shares = np.concatenate([background, classes[..., index]]).clip(_LEAST)
        if numbers is not None:
            picture = np.ascontiguousarray(np.moveaxis(pictures[..., index], 0, -1))
            occurs = shares.max((1, 2)) > _LEAST  # a class that is nowhere costs as much as any other
            shares[occurs] = dense_crf(picture, np.log(shares[occurs]), **numbers)
        labels[..., index] = table[shares.argmax(0)]
    return labels
