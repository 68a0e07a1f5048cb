"""This file brings a prepared scan through the network and back to one probability volume a class.

A *method* is a fitted clusterer with the class of each of its clusters. All methods of a run see
the same windows and the same features, so the comparison between them is fair. Nothing here can
receive a reference.
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
from medseg.stego.model import Clusterer


@dataclass(frozen=True)
class Method:
    """A clusterer and the class value (0: background) of each of its clusters."""

    clusterer: Clusterer
    class_of_cluster: Mapping[int, int]

    def class_probabilities(
        self, features: Float[torch.Tensor, "b d hf wf"], values: Sequence[int]
    ) -> Float[torch.Tensor, "b c hf wf"]:
        """Probability of each class value: the sum over the clusters that carry it."""
        clusters = self.clusterer.probabilities(features)
        membership = torch.zeros(len(values), clusters.shape[1], device=clusters.device, dtype=clusters.dtype)
        for cluster, value in self.class_of_cluster.items():
            if value in values:
                membership[values.index(value), cluster] = 1
        return torch.einsum("bkhw,ck->bchw", clusters, membership)


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
) -> dict[str, Float[np.ndarray, "c i j k"]]:
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
        Per method a float32 volume per class value on the prepared grid, zero outside the windows.
    """
    shape = tuple(sample["image"].shape[1:])
    # Scratch on disk: one volume a class and method would be the largest share of memory.
    total = {name: scratch_array((len(values), *shape)) for name in methods}
    for plane in planes:
        view = replace(geometry, plane=plane)
        locations = grid_locations(shape, view, np.asarray(sample["region"][0]))
        blenders = {
            name: Blender(shape, view, channels=len(values), out=out, share=1 / len(planes))
            for name, out in total.items()
        }
        windows = window_features(sample, locations, view, backbones, device=device, batch_size=batch)
        batches = batch_count(locations, shape, view, backbones, batch)
        with torch.inference_mode():
            for where, features in track(windows, f"{sample['case_id']}: {plane} windows", total=batches):
                for name, method in methods.items():
                    blenders[name].add(method.class_probabilities(features, values).cpu(), where)
        for blender in blenders.values():
            blender.result()
    return total
