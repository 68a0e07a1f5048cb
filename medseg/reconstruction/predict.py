"""This file brings a prepared scan through the network and back to one probability volume a class.

A *voter* is a fitted clusterer with the class of each of its clusters; a *method* is one voter, or several that were
trained with different seeds. All methods of a run see the same windows and the same features, so the comparison
between them is fair. Nothing here can receive a reference.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float

from medseg.features.windows import batch_count, window_features
from medseg.patches.slicing import PatchGeometry, grid_locations
from medseg.prepare.vesselness import scratch_array
from medseg.progress import track
from medseg.reconstruction.blend import Blender
from medseg.reconstruction.slices import slice_log_probabilities
from medseg.stego.model import Clusterer


@dataclass(frozen=True)
class Voter:
    """A clusterer and the class value (0: background) of each of its clusters.

    Attributes:
        clusterer: gives the probability of each cluster.
        class_of_cluster: clusters that are not in it are background.
        by_strongest: whether a class is as likely as its strongest cluster, instead of as the sum of its clusters. The
            likeliest class is then that of the likeliest cluster; of many flat probabilities a sum would favour the
            class that has the most clusters.
    """

    clusterer: Clusterer
    class_of_cluster: Mapping[int, int]
    by_strongest: bool = False

    def class_probabilities(
        self, features: Float[torch.Tensor, "b d hf wf"], values: Sequence[int]
    ) -> Float[torch.Tensor, "b c _ _"]:
        """Probability of each class value, see `of_clusters`."""
        return self.of_clusters(self.clusterer.probabilities(features), values)

    def of_clusters(
        self, clusters: Float[torch.Tensor, "b k h w"], values: Sequence[int]
    ) -> Float[torch.Tensor, "b c h w"]:
        """Probability of each class value from those of the clusters; background has what they lack to 1."""
        of_class = [[k for k, value in self.class_of_cluster.items() if value == wanted] for wanted in values]
        if not self.by_strongest:
            return torch.stack([clusters[:, members].sum(1) for members in of_class], dim=1)
        named = {k for members in of_class for k in members}
        others = [k for k in range(clusters.shape[1]) if k not in named]
        none = torch.zeros_like(clusters[:, 0])
        strongest = [clusters[:, members].amax(1) if members else none for members in (others, *of_class)]
        shares = torch.stack(strongest, dim=1)
        return shares[:, 1:] / shares.sum(1, keepdim=True)


@dataclass(frozen=True)
class Method:
    """One or several voters. Their classes are matched by name, so they vote on classes, whatever their clusters."""

    voters: tuple[Voter, ...]

    def votes(
        self, features: Float[torch.Tensor, "b d hf wf"], values: Sequence[int]
    ) -> Float[torch.Tensor, "v b c _ _"]:
        """Class probabilities by each voter."""
        return torch.stack([voter.class_probabilities(features, values) for voter in self.voters])


@dataclass(frozen=True)
class Prediction:
    """Class probabilities of one method over a scan, on the prepared grid, zero outside the windows.

    Attributes:
        median: of the voters; it is not moved by one voter that went wrong. (With several classes the medians need
            not sum to 1.)
        mean: of the voters, which tells how far they agree.
    """

    median: Float[np.ndarray, "c i j k"]
    mean: Float[np.ndarray, "c i j k"]


def predict_case(
    sample: Mapping[str, Any],
    methods: Mapping[str, Method],
    backbones: Sequence[Any],
    *,
    values: Sequence[int],
    geometry: PatchGeometry,
    planes: Sequence[str],
    batch: int,
    device: torch.device,
) -> dict[str, Prediction]:
    """Class probabilities of every method over a prepared scan.

    Args:
        sample: a prepared scan (see `medseg.prepare.chain`).
        methods: by name.
        backbones: the frozen backbones the methods were fitted on, in their order.
        values: the class values wanted, background left out.
        geometry: patch size, overlap and magnification; its plane is replaced.
        planes: one to three planes whose probabilities are averaged.
        batch: windows a batch.
        device: where networks run.

    Returns:
        The prediction of each method.
    """
    shape = tuple(sample["image"].shape[1:])
    # Scratch on disk: one volume a class and method would be the largest share of memory.
    median = {name: scratch_array((len(values), *shape)) for name in methods}
    mean = {name: scratch_array((len(values), *shape)) for name, method in methods.items() if len(method.voters) > 1}
    for plane in planes:
        view = replace(geometry, plane=plane)
        locations = grid_locations(shape, view, np.asarray(sample["region"][0]))

        def blender(out: np.ndarray, view: PatchGeometry = view) -> Blender:
            return Blender(shape, view, channels=len(values), out=out, share=1 / len(planes))

        medians = {name: blender(out) for name, out in median.items()}
        means = {name: blender(out) for name, out in mean.items()}
        windows = window_features(sample, locations, view, backbones, device=device, batch_size=batch)
        batches = batch_count(locations, shape, view, backbones, batch)
        with torch.inference_mode():
            for where, features in track(windows, f"{sample['case_id']}: {plane} windows", total=batches):
                for name, method in methods.items():
                    votes = method.votes(features, values).cpu()
                    medians[name].add(_median(votes), where)
                    if name in means:
                        means[name].add(votes.mean(0), where)
        for blended in (*medians.values(), *means.values()):
            blended.result()
    return {name: Prediction(values, mean.get(name, values)) for name, values in median.items()}


def predict_whole(
    sample: Mapping[str, Any],
    methods: Mapping[str, Method],
    backbones: Sequence[Any],
    *,
    values: Sequence[int],
    flip: bool,
    device: torch.device,
    magnification: int = 1,
) -> dict[str, Prediction]:
    """Class probabilities of every method, each axial slice seen whole, as STEGO is evaluated.

    Args:
        sample: a prepared picture or scan.
        methods: by name.
        backbones: the frozen slice backbones the methods were fitted on, in their order.
        values: the class values wanted, background left out.
        flip: whether codes are averaged over the slice and its mirror image.
        device: where networks run.
        magnification: pixels shown per pixel of the slice, as in training.

    Returns:
        The prediction of each method.
    """
    shape = tuple(sample["image"].shape[1:])
    voters = {(name, n): voter for name, method in methods.items() for n, voter in enumerate(method.voters)}
    clusterers = {f"{name} {n}": voter.clusterer for (name, n), voter in voters.items()}
    found = {name: Prediction(*(np.zeros((len(values), *shape), np.float32) for _ in range(2))) for name in methods}
    slices = slice_log_probabilities(
        sample, clusterers, backbones, flip=flip, device=device, magnification=magnification
    )
    for k, answers in track(slices, f"{sample['case_id']}: slices", total=shape[2]):
        for name, method in methods.items():
            votes = torch.stack(
                [voter.of_clusters(answers[f"{name} {n}"][None].exp(), values) for n, voter in enumerate(method.voters)]
            )
            found[name].median[..., k] = _median(votes)[0].cpu().numpy()
            found[name].mean[..., k] = votes.mean(0)[0].cpu().numpy()
    return found


def _median(votes: Float[torch.Tensor, "v b c hf wf"]) -> Float[torch.Tensor, "b c hf wf"]:
    """Median over the voters; of an even number the mean of the two in the middle."""
    ordered = votes.sort(0).values
    return (ordered[(len(votes) - 1) // 2] + ordered[len(votes) // 2]) / 2
