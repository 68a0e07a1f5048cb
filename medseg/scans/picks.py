"""This file holds what a user picks where a file or folder offers more than one volume.

A *frame* counts from 0 over everything beyond the third dimension, a *channel* from 0 over colours or components, a
*series* is one of the DICOM series that share a folder.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Pick:
    """What to take of a file that holds several volumes; nothing is picked by default, and then several are an error.

    Attributes:
        frame: from 0.
        channel: from 0, of colours or several components.
        series: number, UID or a part of the description of a DICOM series.
        resample: put the slices of an irregular DICOM series on a regular grid instead of refusing them.
    """

    frame: int | None = None
    channel: int | None = None
    series: str | None = None
    resample: bool = False

    def as_dict(self) -> dict[str, Any]:
        """Plain values of what was picked, for manifests and hashes."""
        return {name: value for name, value in asdict(self).items() if value not in (None, False)}


WHOLE = Pick()
"""Nothing picked."""
