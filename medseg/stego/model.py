"""This file holds what a run leaves behind: a method that gives each pixel's probability of each cluster.

All methods share one class: codes (a trained head's, an untrained head's, or the features themselves), K prototypes and
a distance. It is stored as `weights.safetensors` and `method.json` in a folder of its own.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Protocol, get_args, runtime_checkable

import torch
from jaxtyping import Float, Int
from safetensors.torch import load_file, save
from torch import Tensor, nn
from torch.nn import functional

from medseg.errors import MedsegError
from medseg.files import read_json, replacing, write_json
from medseg.stego.head import Head
from medseg.stego.probes import cosines

Metric = Literal["cosine", "euclidean"]
_FORMAT = "medseg-method/1"


@runtime_checkable
class Clusterer(Protocol):
    """What prediction needs of a method."""

    name: str

    @property
    def clusters(self) -> int: ...
    def probabilities(self, features: Float[Tensor, "b d hf wf"]) -> Float[Tensor, "b k hf wf"]: ...


class ClusterModel(nn.Module):
    """Prototypes on the codes of a head (or on the features), with a distance.

    Args:
        name: of the method, e.g. `stego`.
        head: turns features into codes; None: the features are the codes.
        prototypes: centre of each cluster.
        metric: `cosine` or `euclidean`.
        sharpness: alpha of `softmax(alpha cos)`; for Euclidean clusters a of `softmax(-a distance^2)`, by default set
            to one over the mean squared distance of the fitted points to their prototype.

    The most probable cluster is always the nearest one.
    """

    prototypes: Tensor

    def __init__(
        self, name: str, head: Head | None, prototypes: Float[Tensor, "k e"], metric: Metric, sharpness: float
    ) -> None:
        super().__init__()
        self.name, self.head, self.metric, self.sharpness = name, head, metric, sharpness
        self.register_buffer("prototypes", prototypes.detach().clone())
        self.eval().requires_grad_(False)

    @property
    def clusters(self) -> int:
        """Number of clusters, K."""
        return len(self.prototypes)

    @property
    def feature_dim(self) -> int:
        """Channels of the features it reads, d."""
        return self.prototypes.shape[1] if self.head is None else self.head.feature_dim

    @torch.no_grad()
    def codes(self, features: Float[Tensor, "b d hf wf"]) -> Float[Tensor, "b e hf wf"]:
        """Codes of a map of features."""
        return features if self.head is None else self.head(features)[0]

    def log_probabilities(self, features: Float[Tensor, "b d hf wf"]) -> Float[Tensor, "b k hf wf"]:
        """Logarithm of `probabilities`."""
        return (self.sharpness * nearness(self.codes(features), self.prototypes, self.metric)).log_softmax(1)

    def probabilities(self, features: Float[Tensor, "b d hf wf"]) -> Float[Tensor, "b k hf wf"]:
        """Probability of each cluster in each pixel; they sum to 1."""
        return (self.sharpness * nearness(self.codes(features), self.prototypes, self.metric)).softmax(1)

    def assign(self, features: Float[Tensor, "n d"]) -> Int[Tensor, "n"]:
        """Nearest cluster of loose points."""
        codes = self.codes(features.T[None, :, :, None])
        return nearness(codes, self.prototypes, self.metric)[0, :, :, 0].argmax(0)

    def save(self, folder: Path) -> None:
        """Write the method into a folder of its own; `method.json`, written last, makes it complete."""
        with replacing(folder / "weights.safetensors") as beside:
            # save_file would make a file that nobody else may read.
            beside.write_bytes(save({name: value.contiguous() for name, value in self.state_dict().items()}))
        head = (
            None
            if self.head is None
            else {
                "feature_dim": self.head.feature_dim,
                "code_dim": self.head.code_dim,
                "projection": self.head.projection,
            }
        )
        content = {"format": _FORMAT, "name": self.name, "head": head, "metric": self.metric}
        write_json(folder / "method.json", content | {"sharpness": self.sharpness, "clusters": self.clusters})

    @classmethod
    def load(cls, folder: Path) -> ClusterModel:
        """Read a method that `save` wrote.

        Raises:
            MedsegError: the folder holds no such method.
        """
        content = read_json(folder / "method.json")
        if not isinstance(content, dict) or content.get("format") != _FORMAT:
            raise MedsegError(f"{folder / 'method.json'} must be a {_FORMAT} file, got another; train the run anew")
        if content.get("metric") not in get_args(Metric) or not isinstance(content.get("sharpness"), int | float):
            got = f"metric {content.get('metric')!r} and sharpness {content.get('sharpness')!r}"
            raise MedsegError(
                f"{folder / 'method.json'} must hold a known metric and a number, got {got}; train the run anew"
            )
        try:
            tensors = load_file(folder / "weights.safetensors")
            head = None if content["head"] is None else Head(**content["head"])
            model = cls(content["name"], head, tensors["prototypes"], content["metric"], content["sharpness"])
            model.load_state_dict(tensors)
        except Exception as error:  # safetensors raises its own kinds
            raise MedsegError(
                f"{folder} must hold the weights of a method, got {' '.join(str(error).split())}; train the run anew"
            ) from error
        return model


def nearness(
    codes: Float[Tensor, "b e *grid"], prototypes: Float[Tensor, "k e"], metric: Metric
) -> Float[Tensor, "b k *grid"]:
    """Cosine, or minus the squared distance, of every pixel to every prototype."""
    if metric == "cosine":
        return cosines(codes, prototypes)
    products = torch.einsum("be...,ke->bk...", codes, prototypes)
    grid = (1,) * (codes.ndim - 2)
    return 2 * products - prototypes.square().sum(1).view(1, -1, *grid) - codes.square().sum(1, keepdim=True)


def unit(points: Float[Tensor, "n e"]) -> Float[Tensor, "n e"]:
    """Points divided by their length."""
    return functional.normalize(points, dim=1)
