"""This file asks a probe: it makes the label-free prior of a prepared scan, and joins it with what the head says.

The *prior* is the answer of the method whose masks the run makes without labels. Of an angiogram its refined mask
decides on which side the prior is: the probability alone knows no gate and no wall. Pictures are refined after the
probe.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float

from medseg.config import SEEN, Config
from medseg.fewshot.gate import Gate, open_voxels
from medseg.fewshot.probe import ProbeCard, joined, log_odds, mask_prior
from medseg.fewshot.volume import VolumeHead, answer_volume
from medseg.naming.classes import ClassEntry, Naming, read_classes
from medseg.patches.slicing import PatchGeometry
from medseg.reconstruction.predict import Method, Voter, predict_case, predict_whole
from medseg.reconstruction.refine import refine
from medseg.stego.model import LinearModel
from medseg.workflows import parts

Shares = Float[np.ndarray, "c i j k"]

CORE_STEPS = ("tubes", "weak_sheets", "radius_edge", "half_maximum_edge")
"""Refine steps that move the wall, or judge a vessel by its core as if it had no wall yet. The prior has been through
them; after a probe they would take away the wall that labels drew."""

NO_MORE = {"least_probability": 2.0}
"""Options of the step `gate` with which it adds nothing: no probability reaches this."""


@dataclass(frozen=True)
class Prior:
    """The label-free answer of a run.

    Attributes:
        config: by which it is made.
        naming: its classes.
        values: class value of each channel of what `shares` gives.
        shares: probabilities of a prepared scan.
    """

    config: Config
    naming: Naming
    values: Sequence[int]
    shares: Callable[[Mapping[str, Any], torch.device], Shares]

    def odds(
        self,
        sample: Mapping[str, Any],
        classes: Sequence[ClassEntry],
        device: torch.device,
        looked_at: Mapping[str, Any] | None = None,
    ) -> Shares:
        """Log-odds of these classes, found by their names; 0 of those that the prior does not know.

        Args:
            sample: the prepared scan.
            classes: wanted.
            device: where networks run.
            looked_at: the same with a smaller region, outside of which networks need not look.
        """
        shares = self.shares(looked_at or sample, device)
        value_of = {entry.name: entry.value for entry in self.naming.classes}
        known = [n for n, entry in enumerate(classes) if entry.name in value_of]
        chosen = shares[[self.values.index(value_of[classes[n].name]) for n in known]]
        found = np.zeros((len(classes), *shares.shape[1:]), np.float32)
        if known:
            found[known] = mask_prior(log_odds(chosen), self._masks(sample, chosen))
        return found

    def _masks(self, sample: Mapping[str, Any], shares: Shares) -> np.ndarray | None:
        if self.config.prepare.modality in SEEN:
            return None
        volume = parts.refinement_volume(sample)
        return np.stack([refine(share, volume, self.config.reconstruct.refine) for share in shares])


@dataclass(frozen=True)
class TaughtProbe:
    """A probe of a run with all that it needs.

    Attributes:
        card: of the probe.
        head: on features.
        naming: its classes.
        prior: the label-free answer.
        backbones: frozen.
        geometry: of windows.
        gate: says where there is nothing to look at; None looks everywhere.
    """

    card: ProbeCard
    head: LinearModel | VolumeHead
    naming: Naming
    prior: Prior
    backbones: Sequence[Any]
    geometry: PatchGeometry
    gate: Gate | None = None

    @property
    def taught(self) -> list[ClassEntry]:
        """The classes that labels taught, in the order of the head's channels."""
        return taught_classes(self.naming)

    def knows(self, sha256: str) -> bool:
        """Whether labels of the scan with this content taught it."""
        return sha256 in self.card.taught.values()

    def probabilities(
        self, sample: Mapping[str, Any], config: Config, values: Sequence[int], device: torch.device
    ) -> Shares:
        """Probability of each class value of a prepared scan to which the backbones' maps were added."""
        looked_at = sample if self.gate is None else behind_gate(sample, self.gate)
        prior = self.prior.odds(sample, self.taught, device, looked_at)
        if isinstance(self.head, VolumeHead):
            head = answer_volume(self.head, looked_at, self.backbones, prior, device)
        else:
            head = log_odds(self._linear(looked_at, config, device))
        shares = joined(prior, head, self.card.prior_weight)
        if self.gate is not None:
            shares *= np.asarray(looked_at["region"]) > 0
        if list(values) == [entry.value for entry in self.taught]:
            return shares
        spread = np.zeros((len(values), *shares.shape[1:]), np.float32)
        spread[[values.index(entry.value) for entry in self.taught]] = shares
        return spread

    def _linear(self, sample: Mapping[str, Any], config: Config, device: torch.device) -> Shares:
        """The head through the same windows as every other method."""
        assert isinstance(self.head, LinearModel)
        values = [entry.value for entry in self.taught]
        method = {"probe": Method((Voter(self.head.to(device), self.naming.class_of_cluster),))}
        if config.reconstruct.windows == "whole":
            found = predict_whole(
                sample, method, self.backbones, values=values, flip=config.reconstruct.flip, device=device,
                magnification=self.geometry.magnification,
            )  # fmt: skip
        else:
            found = predict_case(
                sample, method, self.backbones, values=values, geometry=self.geometry,
                planes=config.reconstruct.planes, batch=config.reconstruct.batch, device=device,
            )  # fmt: skip
        return found["probe"].median


def gate_channels(sample: Mapping[str, Any]) -> Float[np.ndarray, "2 i j k"]:
    """What a gate sees of a prepared scan."""
    return np.concatenate([np.asarray(sample["image"][:1]), np.asarray(sample["salience"][:1])], dtype=np.float32)


def behind_gate(sample: Mapping[str, Any], gate: Gate) -> dict[str, Any]:
    """The sample with a region that holds the patches which the gate keeps."""
    region = np.asarray(sample["region"])
    kept = open_voxels(gate, gate_channels(sample), region[0] > 0)
    return {**sample, "region": torch.from_numpy(region * kept)}


def taught_classes(naming: Naming) -> list[ClassEntry]:
    """The classes of a probe that labels taught; others are found by a refine step."""
    return sorted((entry for entry in naming.classes if entry.clusters), key=lambda entry: entry.clusters)


def steps_after(
    method: str, steps: Sequence[tuple[str, Mapping[str, float]]]
) -> Sequence[tuple[str, Mapping[str, float]]]:
    """The refine steps that a method's probability of an angiogram still goes through.

    After a probe the gate still takes away what holds no core of the flux rule, and adds no core: the prior has had it,
    and its wall then went where it belongs.
    """
    if method != "probe":
        return steps
    kept = [(name, options) for name, options in steps if name not in CORE_STEPS]
    return [(name, {**options, **NO_MORE} if name == "gate" else options) for name, options in kept]


def open_probe(
    folder: Path, prior: Prior, backbones: Sequence[Any], geometry: PatchGeometry, device: torch.device
) -> TaughtProbe:
    """Read the probe of a run.

    Raises:
        MedsegError: it is damaged, or was taught on other features.
    """
    card = ProbeCard.read(folder)
    if card.head == "linear":
        head: Any = parts.load_clusterer(folder, backbones, geometry, device)
    else:
        parts.require_facts(folder, backbones, geometry)
        head = VolumeHead.load(folder)
    naming = read_classes(folder / "classes.yaml")
    return TaughtProbe(card, head, naming, prior, backbones, geometry, Gate.load(folder))
