"""This file makes the gallery page: patches, their codes and clusterings of them become data in one HTML file.

The page assigns every place to its nearest prototype itself, so that another number of clusters needs no computer but
the reader's. For that it holds *codes* in 256 steps a channel and, for each K, the prototypes among them; nearness is
the Euclidean distance of these codes. What a place is stands in `places`.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8

from medseg.errors import MedsegError
from medseg.files import replacing
from medseg.patches.planes import PLANE_AXES
from medseg.review.gallery.patches import Patches, ShownPatch
from medseg.review.gallery.places import APART, STRIP, Place
from medseg.review.page import SOFTWARE, as_script_json, page_around

SCHEMA = "medseg-clusters/1"
MOST_MB = 30.0
"""MB (10^6 bytes) of a page that can be sent by mail and opens at once."""
CODE_STEPS = 255
"""Steps of a channel of the codes, one byte each."""
_PACKAGE = "medseg.review.gallery"
_SHARED_SCRIPTS = ("elements.js", "nifti.js")
"""Of the review page, which this one needs, too."""
_BYTES_A_MB = 1e6


@dataclass(frozen=True)
class StoredCodes:
    """Codes in whole steps: a channel's value is `low + step * stored`."""

    values: UInt8[np.ndarray, "n e h w"]
    low: Float[np.ndarray, " e"]
    step: Float[np.ndarray, " e"]

    @property
    def codes(self) -> Float[np.ndarray, "n e h w"]:
        """The codes as the page reads them."""
        return self.low[:, None, None] + self.step[:, None, None] * self.values


@dataclass(frozen=True)
class Card:
    """What the page says of a cluster.

    Attributes:
        cluster: its number.
        colour: `#rrggbb`.
        name: of its class; None where it has none.
        sure: from 0 to 1, how far the rules are from saying otherwise; None where no rule spoke.
        reason: why, in words.
        share: of all sampled voxels.
        facts: by the keys of `medseg.naming.cards.FACTS`.
    """

    cluster: int
    colour: str
    name: str | None
    sure: float | None
    reason: str
    share: float
    facts: Mapping[str, float]

    def as_dict(self) -> dict[str, Any]:
        """Plain values."""
        return {**self.__dict__, "facts": dict(self.facts)}


@dataclass(frozen=True)
class Clustering:
    """Prototypes among the codes of the page, and a card for each."""

    prototypes: Float[np.ndarray, "k e"]
    cards: Sequence[Card]


def stored_codes(codes: Float[np.ndarray, "n e h w"]) -> StoredCodes:
    """Codes in 256 steps from the lowest to the highest value of each channel."""
    low, high = codes.min(axis=(0, 2, 3)), codes.max(axis=(0, 2, 3))
    step = np.where(high > low, (high - low) / CODE_STEPS, 1.0)
    values = np.rint((codes - low[:, None, None]) / step[:, None, None]).astype(np.uint8)
    return StoredCodes(values, low.astype(np.float64), step.astype(np.float64))


def place_data(patches: Patches, place: Place) -> dict[str, Any]:
    """A place for the JSON file."""
    index, row, column = patches.stored_place(place.patch, place.cell)
    source, position = patches.sources[place.patch], patches.position(place.patch, place.cell)
    return {
        "case": source.case,
        "slice": index,
        "row": row,
        "column": column,
        "position": None if position is None else [round(value, 3) for value in position],
        "unit": source.unit,
        "next_cluster": place.next_cluster,
        "distance": place.distance,
        "margin": place.margin,
    }


def write_gallery(
    path: Path,
    head: Mapping[str, Any],
    patches: Patches,
    codes: StoredCodes,
    clusterings: Mapping[int, Clustering],
    *,
    own: int,
    words: Mapping[str, str],
    max_mb: float = MOST_MB,
) -> None:
    """Write the page.

    Args:
        path: where to.
        head: `title`, `created`, `run`, `method`, and `notes`: sentences about it.
        patches: that it shows.
        codes: theirs.
        clusterings: by K.
        own: the run's own K.
        words: what each measurement is, with its unit.
        max_mb: largest page in MB.

    Raises:
        MedsegError: it would be larger.
    """
    plane, size, turned = patches.plane, patches.size, patches.turned
    data = {
        **head,
        "schema": SCHEMA,
        "software": SOFTWARE,
        "own": own,
        "strip": STRIP,
        "apart": APART,
        "words": dict(words),
        "patches": [_source_data(source) for source in patches.sources],
        "geometry": {"plane": plane, "axis": PLANE_AXES[plane], "size": size, "turned": turned},
        "images": {"shape": list(patches.images.shape), "bytes": _base64(patches.images)},
        "codes": {
            "shape": list(codes.values.shape),
            "low": codes.low.tolist(),
            "step": codes.step.tolist(),
            "bytes": _base64(codes.values),
        },
        "inside": _base64(patches.inside.astype(np.uint8)),
        "clusterings": [
            {"k": k, "prototypes": one.prototypes.tolist(), "cards": [card.as_dict() for card in one.cards]}
            for k, one in sorted(clusterings.items())
        ],
    }
    content = page_around(as_script_json(data), _PACKAGE, _SHARED_SCRIPTS).encode()
    if len(content) > max_mb * _BYTES_A_MB:
        raise MedsegError(
            f"{path} must have at most {max_mb:g} MB, got {len(content) / _BYTES_A_MB:.1f} MB for "
            f"{len(patches.sources)} patches; take fewer patches (--patches)"
        )
    with replacing(path) as beside:
        beside.write_bytes(content)


def _source_data(source: ShownPatch) -> dict[str, Any]:
    affine = None if source.affine is None else source.affine[:3].tolist()
    return {**source.__dict__, "location": list(source.location), "affine": affine}


def _base64(values: UInt8[np.ndarray, "..."]) -> str:
    return base64.b64encode(np.ascontiguousarray(values).tobytes()).decode()
