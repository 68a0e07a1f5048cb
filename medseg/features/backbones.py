"""This file says what a backbone is and loads slice backbones by name or from a checkpoint file.

Words: a *backbone* maps patches or boxes to features and is never trained; a *slice* backbone sees 2-D
patches, a *volume* backbone a 3-D box of a prepared scan; the *stride* is the size in pixels of one
feature cell; a *plain ViT* is one as published with DINO.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import timm
import torch
from huggingface_hub import constants, try_to_load_from_cache
from huggingface_hub.utils import get_session
from jaxtyping import Float
from timm.data.constants import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from medseg.errors import MedsegError
from medseg.features.checkpoints import read_weights, strip_prefix
from medseg.features.frozen import FeatureName, FrozenBackbone, FrozenMaps, FrozenViT, is_plain_vit
from medseg.features.image_bank import ImageBank
from medseg.features.packaged import PACKAGED, packaged_model
from medseg.features.pyramid import PYRAMID_BACKBONE, TrunkMaps

Box = tuple[slice, slice, slice]

_HEAD_WIDTH = 64  # of every published ViT but those of MoCo v3
_MOCO_V3_SMALL_HEADS = 12
# Parts of checkpoints that stand behind the features: classifiers, projection heads, DINO's and MoCo's.
_BEHIND_FEATURES = re.compile(r"^(head|fc|fc_norm|head_dist|classifier|predictor|projector|prototypes|mask_token)\b")
_RESNETS: dict[tuple[bool, tuple[int, ...]], str] = {
    (False, (2, 2, 2, 2)): "resnet18",
    (False, (3, 4, 6, 3)): "resnet34",
    (True, (3, 4, 6, 3)): "resnet50",
    (True, (3, 4, 23, 3)): "resnet101",
    (True, (3, 8, 36, 3)): "resnet152",
}


@runtime_checkable
class SliceBackbone(Protocol):
    """Frozen features of 2-D patches.

    Attributes:
        name: As configured.
        dim: Number of feature channels, d.
        stride: Pixels per feature cell; a patch of h x w gives about h / stride x w / stride cells.
        fingerprint: Hash of name, kind of feature and weights.
    """

    name: str
    dim: int
    stride: int
    fingerprint: str

    def __call__(self, patches: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b d hf wf"]:
        """Features of ImageNet-normalised patches; the feature grid covers exactly the patch."""
        ...


@runtime_checkable
class VolumeBackbone(Protocol):
    """Frozen features at voxel resolution of any box of a prepared scan.

    Attributes:
        name: As configured.
        dim: Number of feature channels, d.
        fingerprint: Hash of name and of whatever else changes the features.
    """

    name: str
    dim: int
    fingerprint: str

    def features_of_box(self, sample: Mapping[str, Any], box: Box) -> Float[Tensor, "d i j k"]:
        """Features of one box; the halo is read from the sample, so tiled equals whole."""
        ...


def to_rgb(patches: Float[Tensor, "b c h w"], display: str = "tissue") -> Float[Tensor, "b 3 h w"]:
    """Show prepared patches to a network trained on photographs.

    Pictures (display `rgb`) get ImageNet's normalisation as they are. In angiograms (`tissue`) brightness
    j in tissue medians becomes the grey value 1 - 2^-j first. The window is fixed, so the same tissue
    looks the same in every patch (a window per patch throws absolute brightness away, and divides by
    zero on a constant one). It is strictly monotone, so no
    vessel is clipped to white however bright in-flow makes it; tissue comes to mid-grey (.5, where
    ImageNet's mean lies) and vessels of 2-4 medians to .75-.94, the steepest range left to dim ones.

    Args:
        patches: In tissue medians, or display values 0 to 1. One channel is replicated; three (neighbouring slices, or
            colours) are kept as channels.
        display: `tissue` or `rgb`, as the preparation says.

    Raises:
        MedsegError: neither one nor three channels.
    """
    channels = patches.shape[1]
    if channels not in (1, 3):
        raise MedsegError(
            f"patches for a slice backbone must have 1 or 3 channels, got {channels}; set patches.neighbours to 0 or 1"
        )
    shown = patches if display == "rgb" else 1 - torch.exp2(-patches.clamp(min=0))
    mean, std = (shown.new_tensor(c).view(1, 3, 1, 1) for c in (IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD))
    return (shown.expand(-1, 3, -1, -1) - mean) / std


def load_slice_backbone(
    name: str, *, checkpoint: Path | None = None, feature: FeatureName = "feat", pretrained: bool = True
) -> FrozenBackbone:
    """Load a frozen slice backbone by name, from the hub's cache, the hub, or a checkpoint file.

    Args:
        name: A timm model (`vit_small_patch8_224.dino`, `vit_base_patch14_dinov2.lvd142m`, `resnet50`
            ...). `NAME@STAGE` picks the stage of a CNN (`resnet50@4`; default: the deepest of stride <= 16);
            `resnet50@2+3+4` joins the three maps that a feature pyramid stands on.
            `image_bank` needs no weights, `efficientnet_lite0` takes those of the extra `offline`.
            With a checkpoint any other name is allowed: the network is then inferred from
            the tensors, with heads of 64 channels unless the name ends in `headsN`.
        checkpoint: Weights in published DINO or MoCo names (`.pth`, `.safetensors`, Lightning's `.ckpt`).
        feature: `feat`, or `KK` for a plain ViT.
        pretrained: False gives random weights (always the same), for tests and benchmarks.

    Raises:
        MedsegError: unknown name, weights out of reach, or a checkpoint of another network.
    """
    model_name, _, stage = name.partition("@")
    if name == ImageBank.name:
        return ImageBank()
    if checkpoint is not None:
        model = _model_from_file(model_name, Path(checkpoint))
    elif model_name == PACKAGED and pretrained:
        model = packaged_model()
    elif pretrained:
        model = _pretrained(model_name)
    else:
        model = _random(model_name)
    if feature == "KK" and not is_plain_vit(model):
        raise MedsegError(f"features.feature must be feat for {name}, got KK; only a plain ViT has such keys")
    if is_plain_vit(model):
        return FrozenViT(model, name, feature)
    if name == PYRAMID_BACKBONE:
        return TrunkMaps(model, name)
    if stage and not (stage.isdigit() and int(stage) < len(model.feature_info)):
        raise MedsegError(
            f"stage of {model_name} must be 0 to {len(model.feature_info) - 1}, got {stage}; change features.backbone"
        )
    return FrozenMaps(model, name, int(stage) if stage else None)


def vit_from_weights(weights: Mapping[str, Tensor], heads: int, source: str = "weights") -> VisionTransformer:
    """Build timm's ViT with width, depth, patch size, MLP and table read off the tensors, and load them.

    Args:
        weights: By published DINO, DINOv2 or MoCo v3 name, without prefix.
        heads: Number of attention heads, which no tensor tells.
        source: What an error names, usually the file.

    Raises:
        MedsegError: tensors that such a ViT has not, or lacks.
    """
    weights = dict(weights)
    if "register_tokens" in weights:  # DINOv2 names its registers so, and keeps them out of the table
        weights["reg_token"] = weights.pop("register_tokens")
        weights["cls_token"] = weights["cls_token"] + weights["pos_embed"][:, :1]
        weights["pos_embed"] = weights["pos_embed"][:, 1:]
    width, in_channels, _, patch = weights["patch_embed.proj.weight"].shape
    registers = weights["reg_token"].shape[1] if "reg_token" in weights else 0
    positions = weights["pos_embed"].shape[1] - (0 if registers else 1)
    with torch.device("meta"):  # the weights are put in place below, so none need be drawn
        model = VisionTransformer(
            img_size=math.isqrt(positions) * patch,
            patch_size=patch,
            in_chans=in_channels,
            num_classes=0,
            embed_dim=width,
            depth=1 + max(int(name.split(".")[1]) for name in weights if name.startswith("blocks.")),
            num_heads=heads,
            mlp_ratio=weights["blocks.0.mlp.fc1.weight"].shape[0] / width,
            qkv_bias="blocks.0.attn.qkv.bias" in weights,
            init_values=1.0 if "blocks.0.ls1.gamma" in weights else None,
            reg_tokens=registers,
            no_embed_class=registers > 0,
            dynamic_img_size=registers > 0,
        )
    _load(model, weights, source, assign=True)
    return model


def _model_from_file(name: str, path: Path) -> Any:
    """The network that `name` says, or that the tensors tell, with the weights of a file."""
    all_weights = read_weights(path)
    prefix, weights = strip_prefix(all_weights)
    if timm.is_model(name):
        model = _random(name)
        _load(model, weights or all_weights, str(path))
        return model
    if "patch_embed.proj.weight" in weights:
        try:
            heads = _heads(name, prefix, weights["patch_embed.proj.weight"].shape[0])
            return vit_from_weights(weights, heads, str(path))
        except KeyError as error:
            raise MedsegError(f"{path} must hold a whole ViT, got none of {error}; name its timm model") from error
    if weights:
        blocks = [(int(m[1]), int(m[2])) for key in weights if (m := re.match(r"layer(\d)\.(\d+)\.conv1\.weight", key))]
        depths = tuple(1 + max(block for layer, block in blocks if layer == wanted) for wanted in (1, 2, 3, 4))
        if resnet := _RESNETS.get(("layer1.0.conv3.weight" in weights, depths)):
            model = _random(resnet)
            _load(model, weights, str(path))
            return model
    raise MedsegError(
        f"{path} must hold a ViT or a ResNet in published DINO or MoCo names, got {', '.join(list(all_weights)[:3])} "
        f"...; set features.backbone to the timm model it belongs to, got {name}"
    )


def _heads(name: str, prefix: str, width: int) -> int:
    """Head count, which no tensor tells: from the name, MoCo v3's prefix, or 64 channels a head."""
    if told := re.search(r"heads(\d+)$", name):
        return int(told[1])
    if width == 6 * _HEAD_WIDTH and re.search(r"(base|momentum)_encoder\.", prefix):
        return _MOCO_V3_SMALL_HEADS
    if width % _HEAD_WIDTH:
        raise MedsegError(
            f"head count of a ViT of width {width} must be told by its name, got {name}; "
            "set features.backbone to its timm model or to a name that ends in headsN"
        )
    return width // _HEAD_WIDTH


def _load(model: Any, weights: Mapping[str, Tensor], source: str, *, assign: bool = False) -> None:
    """Put weights into a model; every tensor of the model must be there, and none but heads be left over."""
    needed = model.state_dict()
    present = {name: value for name, value in weights.items() if not _BEHIND_FEATURES.match(name)}
    if "pos_embed" in needed and "pos_embed" in present and is_plain_vit(model):
        # A table for another image size is no misfit: it is interpolated to each patch anyway.
        needed["pos_embed"] = present["pos_embed"]
        model.pos_embed = nn.Parameter(present["pos_embed"].clone())
    for name in [*needed, *present]:
        there, wanted = (str(list(d[name].shape)) if name in d else "none" for d in (present, needed))
        if there != wanted and not name.endswith("num_batches_tracked"):
            raise MedsegError(
                f"{source} must fit the backbone, got {name} {there} where {wanted} is needed; "
                "set features.backbone to the model it was trained as"
            )
    model.load_state_dict({k: v for k, v in present.items() if k in needed}, strict=False, assign=assign)


def _require_known(name: str) -> None:
    tagged = "." not in name or name in timm.list_pretrained()
    if not (timm.is_model(name) and tagged):
        near = difflib.get_close_matches(name, timm.list_models(pretrained=True), n=3, cutoff=0.4)
        raise MedsegError(f"features.backbone must be a timm model, got {name}; try {', '.join(near) or 'filter_bank'}")


def _random(name: str) -> Any:
    """A timm model with random weights, always the same, without touching the caller's random state."""
    _require_known(name)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return _create(name)


def _create(name: str, **options: Any) -> Any:
    """timm's factory; transformers that can are told to take images of any size."""
    try:
        return timm.create_model(name, num_classes=0, dynamic_img_size=True, **options)
    except TypeError:
        return timm.create_model(name, num_classes=0, **options)


def _pretrained(name: str) -> Any:
    """A timm model with its published weights: from the cache if there, else from the hub.

    Raises:
        MedsegError: the weights cannot be had, with the three ways out.
    """
    _require_known(name)
    settings = timm.get_pretrained_cfg(name)
    repository = settings.hf_hub_id if settings else None
    files = (settings.hf_hub_filename, "model.safetensors", "pytorch_model.bin") if settings else ()
    try:
        if repository is None:
            return _create(name, pretrained=True)
        cached = [try_to_load_from_cache(repository, file) for file in files if file]
        if found := next((file for file in cached if isinstance(file, str)), None):
            return _create(name, pretrained=True, pretrained_cfg_overlay={"file": found})
        # One look with a short limit: the hub's client itself retries for the better part of a minute.
        get_session().head(constants.ENDPOINT, timeout=5)
        return _create(name, pretrained=True)
    except Exception as error:  # the clients beneath raise classes without a common root
        reason = " ".join(str(error).split())[:160] or type(error).__name__
        raise MedsegError(
            f"weights of {name} must be in reach, got no download ({reason}); give a file with features.checkpoint, "
            f"or copy the hub cache {constants.HF_HUB_CACHE} from a connected machine, "
            "or use a config that needs no weights, such as tof_mra or pictures_bank"
        ) from error
