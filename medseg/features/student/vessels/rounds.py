"""This file ends a round of the student's training: its features are measured, and unknown labels are settled.

A *round* trains one student on one set of labels. What it leaves is a *snapshot*, a student of its own, and for the
next round labels in which voxels that it is sure about have become known.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import Tensor

from medseg.features.student.channels import mean_and_sd, moments_of
from medseg.features.student.vessels.network import network_from
from medseg.features.student.vessels.student import VesselStudent
from medseg.features.student.vessels.volumes import StudentVolume, relabel
from medseg.features.teachers.vessels import settle
from medseg.progress import track

MEASURED_VOLUMES = 8
"""Volumes at whose points the features are measured; more would not change mean and sd."""


def close_round(
    weights: Mapping[str, Tensor],
    widths: Sequence[int],
    volumes: Sequence[StudentVolume],
    fabric: Fabric,
    *,
    settled: Path | None,
) -> VesselStudent:
    """Measure the features of a round's network, and settle labels with its probabilities; each process does its share.

    Args:
        weights: of the network.
        widths: its channels.
        volumes: with the teacher's own labels, so that no error of an earlier round is kept.
        fabric: device and processes.
        settled: where the labels of the next round go; None after the last.
    """
    student = VesselStudent(network_from(weights, widths), torch.zeros(widths[0]), torch.ones(widths[0]))
    if settled:
        settled.mkdir(parents=True, exist_ok=True)  # also where there is nothing to settle
    measured = set(np.linspace(0, len(volumes) - 1, MEASURED_VOLUMES).astype(int).tolist())
    moments = torch.zeros(3, widths[0], dtype=torch.float64)
    looked_at = [n for n, volume in enumerate(volumes) if n in measured or (settled and volume.has_unknown)]
    for number in track(looked_at[fabric.global_rank :: fabric.world_size], "looking at the scans"):
        volume = volumes[number]
        maps = student.maps(volume.sample(), fabric.device)
        if number in measured:
            moments += moments_of(maps["student_features"].flatten(1)[:, torch.from_numpy(volume.points)])
        if settled and volume.has_unknown:
            probability = maps["student_probability"][0].numpy()
            labels = settle(np.array(volume.labels), probability, np.array(volume.region).view(bool))
            relabel(volume, labels, settled / str(number))
    return VesselStudent(student.net, *mean_and_sd(moments, fabric))


def settled_volumes(volumes: Sequence[StudentVolume], settled: Path) -> list[StudentVolume]:
    """The volumes with the labels that `close_round` left; those without unknown voxels keep their own.

    Raises:
        MedsegError: labels are missing or damaged.
    """
    return [
        StudentVolume(volume.folder, settled / str(number)) if volume.has_unknown else volume
        for number, volume in enumerate(volumes)
    ]
