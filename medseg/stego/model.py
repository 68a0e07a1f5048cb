"""This file holds what a run leaves behind: a method that gives each pixel's probability of each cluster.

Clusterings share one class: codes (a trained head's, an untrained head's, or the features themselves), K prototypes and
a distance. The *linear probe* is the other kind: its clusters are the classes of the labels it was trained on. A method
is stored as `weights.safetensors` and `method.json` in a folder of its own.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, Protocol, get_args, runtime_checkable

import torch
from jaxtyping import Float, Int
from safetensors.torch import load_file, save
from torch import Tensor, nn
from torch.nn import functional

from medseg.errors import MedsegError
from medseg.files import read_json, replacing, write_json
from medseg.stego.head import AnyHead, build_head, describe_head
from medseg.stego.probes import cosines

Metric = Literal["cosine", "euclidean"]
_FORMAT = "medseg-method/1"


@runtime_checkable
class Clusterer(Protocol):
    """What prediction needs of a method."""

    name: str

    @property
    def clusters(self) -> int: ...
    def probabilities(self, features: Float[Tensor, "b d hf wf"]) -> Float[Tensor, "b k hc wc"]: ...
    def codes(self, features: Float[Tensor, "b d hf wf"]) -> Float[Tensor, "b e hc wc"]: ...
    def log_probabilities_of(self, codes: Float[Tensor, "b e hc wc"]) -> Float[Tensor, "b k hc wc"]: ...


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
        self, name: str, head: AnyHead | None, prototypes: Float[Tensor, "k e"], metric: Metric, sharpness: float
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
    def codes(self, features: Float[Tensor, "b d hf wf"]) -> Float[Tensor, "b e hc wc"]:
        """Codes of a map of features, on the grid of the head."""
        return features if self.head is None else self.head(features)[0]

    def log_probabilities_of(self, codes: Float[Tensor, "b e hc wc"]) -> Float[Tensor, "b k hc wc"]:
        """Logarithm of the probability of each cluster, from codes."""
        return (self.sharpness * nearness(codes, self.prototypes, self.metric)).log_softmax(1)

    def log_probabilities(self, features: Float[Tensor, "b d hf wf"]) -> Float[Tensor, "b k hc wc"]:
        """Logarithm of `probabilities`."""
        return self.log_probabilities_of(self.codes(features))

    def probabilities(self, features: Float[Tensor, "b d hf wf"]) -> Float[Tensor, "b k hc wc"]:
        """Probability of each cluster in each pixel; they sum to 1."""
        return (self.sharpness * nearness(self.codes(features), self.prototypes, self.metric)).softmax(1)

    def assign(self, features: Float[Tensor, "n d"]) -> Int[Tensor, " n"]:
        """Nearest cluster of loose points; a pyramid's head has none to give."""
        return self.assign_codes(self.codes(features.T[None, :, :, None])[0, :, :, 0].T)

    def assign_codes(self, codes: Float[Tensor, "n e"]) -> Int[Tensor, " n"]:
        """Nearest cluster of loose codes."""
        return nearness(codes, self.prototypes, self.metric).argmax(1)

    def save(self, folder: Path) -> None:
        """Write the method into a folder of its own; `method.json`, written last, makes it complete."""
        head = None if self.head is None else describe_head(self.head)
        content = {"format": _FORMAT, "name": self.name, "head": head, "metric": self.metric}
        _write(folder, self, content | {"sharpness": self.sharpness, "clusters": self.clusters})

    @classmethod
    def load(cls, folder: Path) -> ClusterModel:
        """Read a clustering that `save` wrote.

        Raises:
            MedsegError: the folder holds no such method.
        """
        method = load_method(folder)
        if not isinstance(method, cls):
            raise MedsegError(f"{folder} must hold a clustering, got the method {method.name}; choose another method")
        return method


class LinearModel(nn.Module):
    """The linear probe as a method: class c of the training labels is its cluster c.

    Args:
        name: of the method, `linear`.
        head: turns features into codes.
        weight, bias: of the probe's 1 x 1 convolution, a row for each class.
    """

    weight: Tensor
    bias: Tensor

    def __init__(self, name: str, head: AnyHead, weight: Float[Tensor, "k e"], bias: Float[Tensor, " k"]) -> None:
        super().__init__()
        self.name, self.head = name, head
        self.register_buffer("weight", weight.detach().clone())
        self.register_buffer("bias", bias.detach().clone())
        self.eval().requires_grad_(False)

    @property
    def clusters(self) -> int:
        """Number of classes, the background among them."""
        return len(self.weight)

    @property
    def feature_dim(self) -> int:
        """Channels of the features it reads, d."""
        return self.head.feature_dim

    @torch.no_grad()
    def codes(self, features: Float[Tensor, "b d hf wf"]) -> Float[Tensor, "b e hc wc"]:
        """Codes of a map of features, on the grid of the head."""
        return self.head(features)[0]

    def log_probabilities_of(self, codes: Float[Tensor, "b e hc wc"]) -> Float[Tensor, "b k hc wc"]:
        """Logarithm of the probability of each class, from codes."""
        return functional.conv2d(codes, self.weight[:, :, None, None], self.bias).log_softmax(1)

    def log_probabilities(self, features: Float[Tensor, "b d hf wf"]) -> Float[Tensor, "b k hc wc"]:
        """Logarithm of `probabilities`."""
        return self.log_probabilities_of(self.codes(features))

    def probabilities(self, features: Float[Tensor, "b d hf wf"]) -> Float[Tensor, "b k hc wc"]:
        """Probability of each class in each pixel; they sum to 1."""
        return self.log_probabilities(features).exp()

    def assign(self, features: Float[Tensor, "n d"]) -> Int[Tensor, " n"]:
        """Most probable class of loose points; a pyramid's head has none to give."""
        return self.assign_codes(self.codes(features.T[None, :, :, None])[0, :, :, 0].T)

    def assign_codes(self, codes: Float[Tensor, "n e"]) -> Int[Tensor, " n"]:
        """Most probable class of loose codes."""
        return functional.linear(codes, self.weight, self.bias).argmax(1)

    def save(self, folder: Path) -> None:
        """Write the method into a folder of its own; `method.json`, written last, makes it complete."""
        content = {"format": _FORMAT, "kind": "linear", "name": self.name, "head": describe_head(self.head)}
        _write(folder, self, content | {"clusters": self.clusters})

    @classmethod
    def load(cls, folder: Path) -> LinearModel:
        """Read a linear probe that `save` wrote.

        Raises:
            MedsegError: the folder holds no such method.
        """
        method = load_method(folder)
        if not isinstance(method, cls):
            raise MedsegError(f"{folder} must hold a linear probe, got the method {method.name}; choose another method")
        return method


def load_method(folder: Path) -> ClusterModel | LinearModel:
    """Read a method of either kind, as its `method.json` says.

    Raises:
        MedsegError: the folder holds no method.
    """
    content = read_json(folder / "method.json")
    if not isinstance(content, dict) or content.get("format") != _FORMAT:
        raise MedsegError(f"{folder / 'method.json'} must be a {_FORMAT} file, got another; train the run anew")
    linear = content.get("kind") == "linear"
    metric, sharpness = content.get("metric"), content.get("sharpness")
    if not linear and (metric not in get_args(Metric) or not isinstance(sharpness, int | float)):
        raise MedsegError(
            f"{folder / 'method.json'} must hold a known metric and a number, got metric {metric!r} and sharpness "
            f"{sharpness!r}; train the run anew"
        )
    try:
        tensors = load_file(folder / "weights.safetensors")
        head = None if content["head"] is None else build_head(**content["head"])
        model: Any = (
            LinearModel(content["name"], head, tensors["weight"], tensors["bias"])  # type: ignore[arg-type]
            if linear
            else ClusterModel(content["name"], head, tensors["prototypes"], metric, sharpness)  # type: ignore[arg-type]
        )
        model.load_state_dict(tensors)
    except Exception as error:  # safetensors raises its own kinds
        raise MedsegError(
            f"{folder} must hold the weights of a method, got {' '.join(str(error).split())}; train the run anew"
        ) from error
    return model


def _write(folder: Path, method: nn.Module, content: dict[str, Any]) -> None:
    with replacing(folder / "weights.safetensors") as beside:
        # save_file would make a file that nobody else may read.
        beside.write_bytes(save({name: value.contiguous() for name, value in method.state_dict().items()}))
    write_json(folder / "method.json", content)


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
