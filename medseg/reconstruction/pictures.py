"""This file turns class probabilities of pictures into labels, in which every pixel has the likeliest class.

Class probabilities leave out the background (value 0); what they lack to 1 is its probability. *Shares* are the
probabilities of all, background first.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from jaxtyping import Float, Integer, UInt8

from medseg.reconstruction.dense_crf import dense_crf
from medseg.reconstruction.masses import find_masses, find_vessels

FINDERS: Mapping[str, Callable[..., np.ndarray]] = {"masses": find_masses, "vessels": find_vessels}
"""Refine steps that find something inside an organ, in one frame on the sector grid."""
_LEAST = 1e-6


def picture_shares(
    classes: Float[np.ndarray, "c h w n"],
    pictures: Float[np.ndarray, "d h w n"],
    steps: Sequence[tuple[str, Mapping[str, float]]],
    *,
    region: Integer[np.ndarray, "1 h w n"] | None = None,
    inside: Mapping[str, tuple[int, int]] | None = None,
) -> Float[np.ndarray, "c1 h w n"]:
    """Shares of background and classes in every pixel.

    Args:
        classes: probability of each class, background left out.
        pictures: display values 0 to 1, one channel or three.
        steps: `crf` with its numbers, see `medseg.reconstruction.dense_crf`, and those of `FINDERS`, or none.
        region: where something is sought inside an organ; None is everywhere.
        inside: for the steps of `FINDERS` the places in `classes` of what they find, and of the organ.
    """
    crf: dict[str, Any] | None = next((dict(numbers) for name, numbers in steps if name == "crf"), None)
    if crf is not None and "iterations" in crf:
        crf["iterations"] = int(crf["iterations"])
    shares = np.concatenate([1 - classes.sum(0, keepdims=True), classes]).clip(_LEAST)
    if crf is not None:
        for index in range(shares.shape[3]):
            frame = shares[..., index]
            picture = np.ascontiguousarray(np.moveaxis(pictures[..., index], 0, -1))
            picture = np.broadcast_to(picture, (*picture.shape[:2], 3))
            occurs = frame.max((1, 2)) > _LEAST  # a class that is nowhere costs as much as any other
            frame[occurs] = dense_crf(picture, np.log(frame[occurs]), **crf)
    for name, numbers in steps:
        if name in FINDERS and inside and name in inside:
            part, organ = inside[name]
            _carve(partial(FINDERS[name], **numbers), shares[1 + part], shares[1 + organ], pictures, region)
    return shares


def _carve(
    find: Callable[..., np.ndarray],
    part: Float[np.ndarray, "h w n"],
    organ: Float[np.ndarray, "h w n"],
    pictures: Float[np.ndarray, "d h w n"],
    region: Integer[np.ndarray, "1 h w n"] | None,
) -> None:
    """Give the organ's share to what was found in it; the border of the organ stays where it is."""
    inside = np.ones(organ.shape, bool) if region is None else region[0] > 0
    for index in range(organ.shape[2]):
        found = find(pictures[..., index].mean(0), inside[..., index], organ[..., index]) > 0.5
        part[..., index] = np.where(found, organ[..., index], _LEAST)
        organ[..., index] = np.where(found, _LEAST, organ[..., index])


def likeliest(
    shares: Float[np.ndarray, "c1 h w n"],
    values: Sequence[int],
    bring_back: Callable[[Float[np.ndarray, "1 h w n"]], Float[np.ndarray, "1 h0 w0 n0"]] = lambda share: share,
) -> UInt8[np.ndarray, "h0 w0 n0"]:
    """Label every pixel with its likeliest class.

    Args:
        shares: of background and classes.
        values: value of each class.
        bring_back: takes a share to another grid. Shares are brought there one by one, so that the borders between
            classes are as fine as that grid and memory does not grow with the number of classes.
    """
    labels, best = None, None
    for value, share in zip((0, *values), shares, strict=True):
        there = bring_back(share[None])[0]
        if labels is None or best is None:
            labels, best = np.full(there.shape, value, np.uint8), there.copy()
            continue
        wins = there > best
        labels[wins], best[wins] = value, there[wins]
    assert labels is not None
    return labels
