"""This file runs frozen 2-D networks: input of any size in, one feature map out, at published precision.

Words: the *position table* is what a ViT adds to its tokens to tell where they are; `feat` are the
layer-normed tokens of the last block, `KK` the keys of its attention, heads concatenated; the *stride*
is the size in pixels of one feature cell; a *stage* is a depth of a CNN at which a map can be taken.

References:
    Caron et al., Emerging Properties in Self-Supervised Vision Transformers, ICCV 2021 (DINO).
    Hamilton et al., Unsupervised Semantic Segmentation by Distilling Feature Correspondences, ICLR 2022.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import Any, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from timm.data.constants import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from timm.layers import PatchEmbed
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from medseg.errors import MedsegError
from medseg.features.checkpoints import hash_weights

FeatureName = Literal["feat", "KK"]

_FINEST_USEFUL_STRIDE = 16  # a CNN's default stage: the deepest that still has cells of 16 pixels


class FrozenBackbone(nn.Module, ABC):
    """What frozen networks share: input of any size, own normalisation, no gradient, always eval."""

    def __init__(self, model: Any, name: str, *, dim: int, stride: int, settings: tuple[object, ...]) -> None:
        super().__init__()
        self.model: Any = model.requires_grad_(False).eval()
        super().train(False)
        self.name, self.dim, self.stride = name, dim, stride
        self.fingerprint = hash_weights(model.state_dict(), name, *settings)
        constants_of_model = getattr(model, "pretrained_cfg", None) or {}
        self._mean = tuple(constants_of_model.get("mean", IMAGENET_DEFAULT_MEAN))
        self._std = tuple(constants_of_model.get("std", IMAGENET_DEFAULT_STD))

    def train(self, mode: bool = True) -> FrozenBackbone:
        """Stay in eval mode: frozen features must not depend on batch mates or chance."""
        return self

    @torch.no_grad()
    def forward(self, patches: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b d hf wf"]:
        """Features of ImageNet-normalised patches.

        A height or width that is no multiple of the stride is resized (bilinear) to the nearest one.
        Padding instead would let the feature grid stick out over the patch, and features would be
        pasted back up to one cell off.
        """
        return self._features(_fit_to_stride(self.as_trained(patches), self.stride))

    @abstractmethod
    def _features(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b d hf wf"]:
        """Features of images whose sides are multiples of the stride."""

    def as_trained(self, patches: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 3 h w"]:
        """Patches in ImageNet's normalisation, in the one that the network was trained with."""
        if (self._mean, self._std) == (IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD):
            return patches
        to, by, mean, std = (
            patches.new_tensor(c).view(1, 3, 1, 1)
            for c in (IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD, self._mean, self._std)
        )
        return (patches * by + to - mean) / std


class FrozenViT(FrozenBackbone):
    """A plain ViT with DINO's own interpolation of the position table (timm's differs by its antialiasing)."""

    def __init__(self, model: Any, name: str, feature: FeatureName = "feat") -> None:
        heads = model.blocks[0].attn.num_heads
        stride = model.patch_embed.patch_size[0]
        super().__init__(model, name, dim=model.embed_dim, stride=stride, settings=(feature, heads))
        self.feature = feature

    def tokens(self, images: Float[Tensor, "b 3 h w"], blocks: int | None = None) -> Float[Tensor, "b n d"]:
        """Layer-normed tokens (CLS and registers first) after `blocks` blocks, by default after all."""
        return self.model.norm(self._raw_tokens(images, len(self.model.blocks) if blocks is None else blocks))

    def _features(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b d hf wf"]:
        if self.feature == "feat":
            tokens = self.tokens(images)
        else:
            last = self.model.blocks[-1]
            before = last.norm1(self._raw_tokens(images, len(self.model.blocks) - 1))
            # qkv channels are ordered (query | key | value) x head x channel: the middle third are
            # the keys, heads concatenated, however many heads there are.
            tokens = last.attn.qkv(before)[..., self.dim : 2 * self.dim]
        hf, wf = (size // self.stride for size in images.shape[-2:])
        return tokens[:, self.model.num_prefix_tokens :].transpose(1, 2).reshape(-1, self.dim, hf, wf)

    @torch.no_grad()
    def stage_maps(self, patches: Float[Tensor, "b 3 h w"], stages: tuple[int, ...]) -> list[Float[Tensor, "b _ _ _"]]:
        """Maps after so many fourths of the blocks, all of one stride: what the stages of a CNN are to a ViT."""
        images = _fit_to_stride(self.as_trained(patches), self.stride)
        hf, wf = (size // self.stride for size in images.shape[-2:])
        depth, tokens, done, found = len(self.model.blocks), self._raw_tokens(images, 0), 0, []
        for stage in stages:
            for block in self.model.blocks[done : depth * stage // 4]:
                tokens = block(tokens)
            done = depth * stage // 4
            normed = self.model.norm(tokens)[:, self.model.num_prefix_tokens :]
            found.append(normed.transpose(1, 2).reshape(-1, self.dim, hf, wf))
        return found

    def _raw_tokens(self, images: Float[Tensor, "b 3 h w"], blocks: int) -> Float[Tensor, "b n d"]:
        vit = self.model
        patches = vit.patch_embed.proj(images)
        tokens = vit.patch_embed.norm(patches.flatten(2).transpose(1, 2))
        prefix = [t.expand(len(tokens), -1, -1) for t in (vit.cls_token, vit.reg_token) if t is not None]
        table = position_table(vit.pos_embed, patches.shape[-2], patches.shape[-1], vit.num_prefix_tokens)
        tokens = vit.norm_pre(torch.cat([*prefix, tokens], dim=1) + table)
        for block in vit.blocks[:blocks]:
            tokens = block(tokens)
        return tokens


class FrozenMaps(FrozenBackbone):
    """Feature maps of any other timm model (CNNs, ViTs of other kinds) at one of its stages."""

    def __init__(self, model: Any, name: str, stage: int | None = None) -> None:
        strides = [_largest(info["reduction"]) for info in model.feature_info]
        fine_enough = [i for i, stride in enumerate(strides) if stride <= _FINEST_USEFUL_STRIDE]
        self.stage = stage if stage is not None else (fine_enough or [len(strides) - 1])[-1]
        dim = model.feature_info[self.stage]["num_chs"]
        super().__init__(model, name, dim=dim, stride=strides[self.stage], settings=(self.stage,))

    @torch.no_grad()
    def maps(self, images: Float[Tensor, "b 3 h w"], stages: tuple[int, ...]) -> list[Float[Tensor, "b _ _ _"]]:
        """Maps of several stages at once, for a feature pyramid."""
        return self.model.forward_intermediates(
            images, indices=list(stages), norm=True, stop_early=True, output_fmt="NCHW", intermediates_only=True
        )

    def stage_maps(self, patches: Float[Tensor, "b 3 h w"], stages: tuple[int, ...]) -> list[Float[Tensor, "b _ _ _"]]:
        """Maps of several stages of ImageNet-normalised patches, whose sides are multiples of every stride."""
        return self.maps(self.as_trained(patches), stages)

    def _features(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b d hf wf"]:
        return self.maps(images, (self.stage,))[0]


def position_table(table: Float[Tensor, "1 n d"], hf: int, wf: int, prefix_tokens: int = 1) -> Float[Tensor, "1 m d"]:
    """DINO's position table for a grid of hf x wf tokens.

    Bicubic with the *scale factors* (hf + .1) / side and (wf + .1) / side passed on, as published:
    sampling positions then follow the factor, not the output size, which shifts the table slightly.

    Raises:
        MedsegError: the table's own grid is not square.
    """
    prefix, grid = table[:, :prefix_tokens], table[:, prefix_tokens:]
    side = math.isqrt(grid.shape[1])
    if side * side != grid.shape[1]:
        raise MedsegError(
            f"position table must be of a square grid, got {grid.shape[1]} positions; choose another checkpoint"
        )
    if (hf, wf) == (side, side):
        return table
    square = grid.reshape(1, side, side, -1).permute(0, 3, 1, 2)
    factors = ((hf + 0.1) / side, (wf + 0.1) / side)
    resized = F.interpolate(square, scale_factor=factors, mode="bicubic")
    return torch.cat([prefix, resized.flatten(2).transpose(1, 2)], dim=1)


def is_plain_vit(model: Any) -> bool:
    """Whether this is a ViT as published with DINO: one table that covers CLS and patches."""
    return (
        type(model) is VisionTransformer
        and type(model.patch_embed) is PatchEmbed
        and model.pos_embed is not None
        and not model.no_embed_class
    )


def _fit_to_stride(images: Float[Tensor, "b 3 h w"], stride: int) -> Float[Tensor, "b 3 hs ws"]:
    """Resize to the nearest multiple of the stride, at least one; nothing happens to a multiple."""
    size = tuple(max(stride, (length + stride // 2) // stride * stride) for length in images.shape[-2:])
    if size == tuple(images.shape[-2:]):
        return images
    return F.interpolate(images, size=size, mode="bilinear", align_corners=False)


def _largest(reduction: int | tuple[int, ...]) -> int:
    return max(reduction) if isinstance(reduction, tuple) else reduction
