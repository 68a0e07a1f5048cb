"""This file makes the liver benchmark's rows that ask the frozen network directly: the teacher, and a linear probe.

The network is EfficientNet-Lite0 (ImageNet), shown the sector grid as the student is shown it. *Cells* are the 48 x 48
in which teacher and student decide; *components* are the principal ones of its maps, fitted to the learn pictures.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Float, Integer, UInt8
from liver_cases import Frame, Masks, Plan
from liver_scores import MASS, TISSUE, as_classes
from scipy.special import expit
from torch import Tensor
from torch.nn import functional

from medseg.features.backbones import load_slice_backbone
from medseg.features.student.liver.basis import Basis, fit_basis
from medseg.features.student.liver.looks import Look, coordinates, look_at
from medseg.features.teachers.liver import CELLS, HAND_SET, prior_logit, teach_from_cues, walk

TRUNK = "efficientnet_lite0@4"
BASIS_CELLS = 300
"""Sampled cells of each map and picture to which the components are fitted."""
PROBE_CELLS, PROBE_ROUNDS, PROBE_DECAY = 400, 60, 1e-3
"""Of the linear probe: sampled cells a picture, rounds of L-BFGS, and the weight of the squared weights."""


def walked_prior(plan: Plan) -> Masks:
    """The teacher's prior, without cues, on the walker of the network's edges."""
    prior = expit(prior_logit(HAND_SET))
    numbers = {"gamma": HAND_SET.pull, "beta": HAND_SET.sharpness, "intensity_share": HAND_SET.intensity_share}
    return _answers(plan, lambda look: walk(prior, look.cues, look.edges, **numbers))


def teacher(plan: Plan, *, edges: bool, context: bool = False) -> Masks:
    """What the teacher says of each frame.

    Args:
        plan: says of which pictures.
        edges: whether it sees borders in features of stride 16.
        context: whether it sees likeness in features of stride 32.
    """

    def answer(look: Look) -> Float[np.ndarray, "48 48"]:
        lesson = teach_from_cues(look.cues, look.edges if edges else None, look.context if context else None)
        return lesson.probability

    return _answers(plan, answer)


def labelled_probe(plan: Plan, seed: int) -> Masks:
    """Softmax regression of tissue, liver and mass on components and position of sampled cells, taught by labels."""
    network, random = _network(plan), np.random.default_rng(seed)
    inputs, classes = [], []
    for picture in plan.taught:
        reference = _on_cells(picture.frame.gathered(picture.label)).ravel()
        known = np.flatnonzero(reference > 0)
        taken = random.choice(known, min(PROBE_CELLS, len(known)), replace=False)
        inputs.append(network.components(picture.frame).flatten(1).T[taken])
        classes.append(torch.from_numpy(reference[taken].astype(np.int64) - TISSUE))
    weight, bias = _softmax_regression(torch.cat(inputs), torch.cat(classes), MASS)
    masks: dict[str, UInt8[np.ndarray, "_h _w"]] = {}
    for picture in plan.report:
        if picture.frame.sector is None:
            masks[picture.name] = np.zeros(picture.shape, np.uint8)
            continue
        logits = torch.einsum("kc,cij->kij", weight, network.components(picture.frame)) + bias[:, None, None]
        shares = [picture.frame.spread(share) for share in logits.softmax(0).numpy()]
        masks[picture.name] = (np.argmax(shares, axis=0) + TISSUE).astype(np.uint8) * picture.frame.mask
    return masks


class Network:
    """The frozen network, what it saw of each frame, and the components.

    Args:
        plan: the components are fitted to its learn pictures.
    """

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._trunk = load_slice_backbone(TRUNK)
        self._looks: dict[Frame, Look] = {}

    def look(self, frame: Frame) -> Look:
        """What is seen of a frame."""
        if frame not in self._looks:
            self._looks[frame] = look_at(frame.image, frame.region, self._trunk)
        return self._looks[frame]

    def components(self, frame: Frame) -> Float[Tensor, "c 48 48"]:
        """Components on the cells, then depth and lateral position."""
        maps = [torch.from_numpy(found)[None] for found in self.look(frame).maps]
        return torch.cat([self._basis(maps)[0], coordinates(CELLS)])

    @cached_property
    def _basis(self) -> Basis:
        random = np.random.default_rng(0)
        looks = [self.look(picture.frame) for picture in self._plan.taught]
        samples = []
        for stage in range(len(looks[0].maps)):
            flat = [look.maps[stage].reshape(len(look.maps[stage]), -1).T for look in looks]
            chosen = [cells[random.permutation(len(cells))[:BASIS_CELLS]] for cells in flat]
            samples.append(torch.from_numpy(np.concatenate(chosen)))
        return fit_basis(samples)


_NETWORKS: dict[str, Network] = {}


def _network(plan: Plan) -> Network:
    """The network of this plan, made once."""
    key = str(plan.work)
    if key not in _NETWORKS:
        _NETWORKS[key] = Network(plan)
    return _NETWORKS[key]


def _answers(plan: Plan, answer: Callable[[Look], Float[np.ndarray, "48 48"]]) -> Masks:
    """Masks of the report pictures from probabilities on the cells; empty ones without a sector."""
    masks = {}
    for picture in plan.report:
        frame, union = picture.frame, np.zeros(picture.shape, bool)
        if frame.sector is not None:
            union = frame.spread(answer(_network(plan).look(frame))) > 0.5
        masks[picture.name] = as_classes(union, frame.mask)
    return masks


def _on_cells(labels: Integer[np.ndarray, "160 160"]) -> Integer[np.ndarray, "48 48"]:
    """The label in the middle of each cell."""
    at = ((np.arange(CELLS) + 0.5) / CELLS * len(labels)).astype(int)
    return labels[np.ix_(at, at)]


def _softmax_regression(
    inputs: Float[Tensor, "n c"], classes: Integer[Tensor, " n"], count: int
) -> tuple[Float[Tensor, "k c"], Float[Tensor, " k"]]:
    weight = torch.zeros(count, inputs.shape[1], requires_grad=True)
    bias = torch.zeros(count, requires_grad=True)
    optimizer = torch.optim.LBFGS([weight, bias], max_iter=PROBE_ROUNDS, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        found = functional.cross_entropy(inputs @ weight.T + bias, classes) + PROBE_DECAY * weight.square().sum()
        found.backward()
        return found

    optimizer.step(loss)
    return weight.detach(), bias.detach()
