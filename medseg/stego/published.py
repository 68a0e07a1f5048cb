"""This file reads what STEGO's own program left behind: its Lightning checkpoints, under our names.

Words: the *net* is the published name of the backbone with its head; *cluster1* and *cluster2* are its two branches, in
a feature pyramid its levels; the *trunk* is the backbone of a pyramid, whose layers are numbered there. Nothing in a
file is executed (see `medseg.features.checkpoints`).

References:
    Hamilton et al., Unsupervised Semantic Segmentation by Distilling Feature Correspondences, ICLR 2022.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jaxtyping import Float
from torch import Tensor

from medseg.errors import MedsegError
from medseg.features.checkpoints import read_checkpoint, strip_prefix
from medseg.features.pyramid import JOINED_CHANNELS, PYRAMID_BACKBONE, pyramid_weights
from medseg.stego.head import AnyHead, build_head

SHARPNESS = 2.0
"""Alpha of `softmax(alpha cos)` by which the published program reads its clusters; without unit."""

_CLUSTERS = "cluster_probe.clusters"
_HEAD_NAMES = {"cluster1.0": "linear", "cluster2.0": "nonlinear.0", "cluster2.2": "nonlinear.2"}
# A ResNet's parts as the published program counts them, activations and pooling included.
_TRUNK_NAMES = {"0": "conv1", "1": "bn1", "4": "layer1", "5": "layer2", "6": "layer3", "7": "layer4"}
_VIT_PARTS = ("cls_token", "pos_embed", "patch_embed", "blocks", "norm", "register_tokens", "reg_token")
_TIMM_NAMES = {
    (384, 12, 8): "vit_small_patch8_224.dino",
    (384, 12, 16): "vit_small_patch16_224.dino",
    (768, 12, 8): "vit_base_patch8_224.dino",
    (768, 12, 16): "vit_base_patch16_224.dino",
}
_ADVICE = "give a checkpoint that STEGO's training wrote"


@dataclass(frozen=True)
class PublishedBackbone:
    """The frozen network of a checkpoint.

    Attributes:
        name: for `features.backbone`; of a network that timm does not know the kind only.
        patch_size: pixels of a ViT's token; None of a ResNet.
        weights: by published name, without prefix.
    """

    name: str
    patch_size: int | None
    weights: dict[str, Tensor]


@dataclass(frozen=True)
class PublishedStego:
    """A trained STEGO as its own program wrote it.

    Attributes:
        head: trained, in eval mode.
        prototypes: of the cluster probe.
        linear: weight and bias of the linear probe; None where there is none.
        decoder: weights of the decoder under our names; None where there is none.
        backbone: the frozen network; None where the file holds the head alone.
        classes: classes it was trained for; without a linear probe its clusters.
        extra_clusters: clusters beyond them.
        hyper_parameters: settings kept as plain values; those kept as objects of the program are not read.
    """

    head: AnyHead
    prototypes: Float[Tensor, "k e"]
    linear: tuple[Float[Tensor, "c e"], Float[Tensor, " c"]] | None
    decoder: dict[str, Tensor] | None
    backbone: PublishedBackbone | None
    classes: int
    extra_clusters: int
    hyper_parameters: dict[str, Any]

    @property
    def feature(self) -> str:
        """Which features of a ViT it reads, `feat` unless its settings say `KK`."""
        return str(self.hyper_parameters.get("dino_feat_type", "feat"))

    def initial(self) -> dict[str, Any]:
        """The weights as a training may begin with them, see `medseg.stego.checkpoints`."""
        probes = {"prototypes": self.prototypes}
        if self.linear is not None:
            weight, bias = self.linear
            probes |= {"linear.weight": weight[:, :, None, None], "linear.bias": bias}
        return {"head": self.head.state_dict(), "probes": probes, "decoder": self.decoder}


def read_published(path: Path) -> PublishedStego:
    """Read a checkpoint of STEGO's own program, whatever prefix its names have.

    Raises:
        MedsegError: the file is no checkpoint, is not safe, or lacks a part; the message names it.
    """
    content = read_checkpoint(path)
    inner = content.get("state_dict", content)
    weights = {name: _single(value) for name, value in inner.items() if isinstance(value, Tensor)}
    settings = _plain_settings(content.get("hyper_parameters"))
    net = _before(weights, "cluster1.0.weight", path, "the head")
    prototypes = weights[_before(weights, _CLUSTERS, path, "the cluster probe") + _CLUSTERS]
    head = _read_head({k.removeprefix(net): v for k, v in weights.items() if k.startswith(net)}, settings, path)
    linear, decoder = _pair(weights, "linear_probe"), _pair(weights, "decoder")
    for what, channels in (("prototypes", prototypes.shape[1]), ("linear probe", linear and linear[0].shape[1])):
        if channels not in (None, head.code_dim):
            raise MedsegError(
                f"{path} must hold {what} on the codes' {head.code_dim} channels, got {channels}; {_ADVICE}"
            )
    classes = len(prototypes) if linear is None else len(linear[0])
    return PublishedStego(
        head=head,
        prototypes=prototypes,
        linear=None if linear is None else (linear[0][:, :, 0, 0], linear[1]),
        decoder=None if decoder is None else {"linear.weight": decoder[0], "linear.bias": decoder[1]},
        backbone=_read_backbone(weights, pyramid=head.projection == "pyramid"),
        classes=classes,
        extra_clusters=max(len(prototypes) - classes, 0),
        hyper_parameters=settings,
    )


def initial_weights(path: Path) -> dict[str, Any]:
    """Weights for a training to begin with: of a checkpoint of STEGO's own program, of a run, or of a run's checkpoint.

    Raises:
        MedsegError: there is none.
    """
    if path.is_dir():
        path = path / "checkpoints" / "last.pt"
    if not path.is_file():
        raise MedsegError(
            f"stego.start must be a STEGO checkpoint or a run folder that was trained, got none at {path}; check it"
        )
    content = read_checkpoint(path)
    if "head" in content and "probes" in content:
        return {part: content.get(part) for part in ("head", "probes", "decoder")}
    return read_published(path).initial()


def _read_head(net: Mapping[str, Tensor], settings: Mapping[str, Any], path: Path) -> AnyHead:
    """The head from the names within the net."""
    code_dim, feature_dim = net["cluster1.0.weight"].shape[:2]
    if any(name.startswith(("conv2.", "cluster1_nl.")) for name in net):
        if settings.get("continuous") is False:
            raise MedsegError(f"{path} must hold a pyramid of codes, got one of classes (continuous: false); {_ADVICE}")
        levels = [int(found[1]) for name in net if (found := re.match(r"cluster(\d)\.0\.weight$", name))]
        head = build_head(JOINED_CHANNELS, code_dim, "pyramid", max(levels))
        ours = {f"pyramid.{name}": value for name, value in pyramid_weights(net).items()}
    else:
        nonlinear = "cluster2.0.weight" in net
        # The published program makes cluster1 also where it is not used, and only its settings tell.
        unused = "projection_type" in settings and settings["projection_type"] is None
        head = build_head(feature_dim, code_dim, "none" if unused else "nonlinear" if nonlinear else "linear")
        named = {f"{old}.{kind}": f"{new}.{kind}" for old, new in _HEAD_NAMES.items() for kind in ("weight", "bias")}
        ours = {} if unused else {named[name]: value for name, value in net.items() if name in named}
    own = head.state_dict()
    for name, value in own.items():
        if name not in ours or ours[name].shape != value.shape:
            got = list(ours[name].shape) if name in ours else "none"
            raise MedsegError(f"{path} must hold a whole head, got {got} for {name} {list(value.shape)}; {_ADVICE}")
    head.load_state_dict({name: ours[name] for name in own})
    return head.eval().requires_grad_(False)


def _read_backbone(weights: Mapping[str, Tensor], *, pyramid: bool) -> PublishedBackbone | None:
    if pyramid:
        weights = {_trunk_name(name): value for name, value in weights.items()}
    _, found = strip_prefix(weights)
    if "patch_embed.proj.weight" in found:
        width, _, _, patch = found["patch_embed.proj.weight"].shape
        depth = len({name.split(".")[1] for name in found if name.startswith("blocks.")})
        name = _TIMM_NAMES.get((width, depth, patch), f"vit_patch{patch}")
        return PublishedBackbone(name, patch, _parts_of(found, _VIT_PARTS))
    if not found:
        return None
    trunk = _parts_of(found, tuple(_TRUNK_NAMES.values()))
    return PublishedBackbone(PYRAMID_BACKBONE if pyramid else "resnet", None, trunk)


def _parts_of(weights: Mapping[str, Tensor], parts: tuple[str, ...]) -> dict[str, Tensor]:
    return {name: value for name, value in weights.items() if name.split(".")[0] in parts}


def _trunk_name(name: str) -> str:
    """A ResNet's name for a numbered layer of a pyramid's encoder; any other name as it is."""
    found = re.match(r"(.*)encoder\.layers\.(\d)\.(.*)", name)
    return f"{found[1]}{_TRUNK_NAMES[found[2]]}.{found[3]}" if found and found[2] in _TRUNK_NAMES else name


def _before(weights: Mapping[str, Tensor], name: str, path: Path, what: str) -> str:
    """What stands before a name, the shortest where there are several."""
    found = [key.removesuffix(name) for key in weights if re.search(rf"(^|\.){re.escape(name)}$", key)]
    if not found:
        raise MedsegError(f"{path} must hold {what} of a STEGO ({name}), got {_some(weights)}; {_ADVICE}")
    return min(found, key=len)


def _pair(weights: Mapping[str, Tensor], part: str) -> tuple[Tensor, Tensor] | None:
    """Weight and bias of a part, where both are there."""
    found = [
        next((value for name, value in weights.items() if re.search(rf"(^|\.){part}\.{kind}$", name)), None)
        for kind in ("weight", "bias")
    ]
    weight, bias = found
    return None if weight is None or bias is None or weight.ndim != 4 else (weight, bias)


def _plain_settings(kept: Any) -> dict[str, Any]:
    """The plain values among the settings, those of an inner `cfg` among them."""
    if not isinstance(kept, Mapping):
        return {}
    inner = kept.get("cfg")
    flat = {**kept, **(inner if isinstance(inner, Mapping) else {})}
    return {str(name): value for name, value in flat.items() if value is None or isinstance(value, str | int | float)}


def _single(value: Tensor) -> Tensor:
    return value.detach().float() if value.is_floating_point() else value


def _some(weights: Mapping[str, Tensor]) -> str:
    return f"{', '.join(list(weights)[:3])} ..." if weights else "no tensor"
