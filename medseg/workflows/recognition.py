"""This file chooses a config for scans that were given without one, by what they show."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

import numpy as np

from medseg.errors import MedsegError
from medseg.features.packaged import is_installed
from medseg.prepare.sector import find_sector
from medseg.scans.cases import Case
from medseg.scans.names import is_picture
from medseg.scans.pictures import iterate_frames

_log = logging.getLogger(__name__)

CONFIG_OF: Mapping[str, str] = {
    "tof": "tof_mra",
    "ce_mra": "ce_mra",
    "cta": "cta",
    "liver_ultrasound": "liver_ultrasound",
}
"""The config that segments a modality, by the names of `prepare.modality`."""
LOOKED_AT = 5
"""Pictures whose first frame is looked at."""


def config_for(cases: Sequence[Case], modality: str | None) -> str:
    """The shipped config for these scans.

    Volumes are taken for TOF-MRA; pictures must be ultrasound, more than half of them with a sector.

    Args:
        cases: what is to be segmented.
        modality: one of `CONFIG_OF`, where the user says it.

    Raises:
        MedsegError: there is no such modality, or pictures show no sector.
    """
    if modality is None:
        modality = "liver_ultrasound" if any(is_picture(case.image) for case in cases) else "tof"
        if modality == "liver_ultrasound":
            _require_sectors([case for case in cases if is_picture(case.image)])
            _log.info("these are ultrasound frames, by their sectors; --modality says it without looking")
    elif modality not in CONFIG_OF:
        raise MedsegError(f"--modality must be one of {', '.join(CONFIG_OF)}, got {modality}; choose one")
    if modality == "liver_ultrasound" and not is_installed():
        _log.warning("without the extra `offline` the student sees grey values only: config liver_ultrasound_bare")
        return "liver_ultrasound_bare"
    return CONFIG_OF[modality]


def _require_sectors(pictures: Sequence[Case]) -> None:
    """Check that most pictures, of a few that are spread over all, show the sector of an ultrasound probe."""
    spread = np.unique(np.linspace(0, len(pictures) - 1, LOOKED_AT).astype(int))
    found, unreadable = list[bool](), list[MedsegError]()
    for case in (pictures[n] for n in spread):
        try:
            frame = next(iterate_frames(case.image, case.pick))
        except MedsegError as error:  # in its turn, its own line will say so
            unreadable.append(error)
        else:
            found.append(find_sector(frame.mean(axis=2)) is not None)
    if not found:
        raise unreadable[0]
    if sum(found) * 2 <= len(found):
        raise MedsegError(
            f"pictures to segment without training must be ultrasound, got {len(found) - sum(found)} of {len(found)} "
            "without a sector; say --modality liver_ultrasound if they are, else train with `medseg run pictures`"
        )
