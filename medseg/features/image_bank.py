"""This file computes a fixed, weight-free bank of 2-D features for photographs and grey pictures, ready for cosine.

Its words: a *channel* is one measurement of a cell of 4 x 4 pixels: a colour, an edge, a texture; a *scale* is the sd
of a Gaussian in pixels; *lifting* spreads a channel over soft bins, so that the cosine of two cells falls with the
difference of their values (see `features/filterbank.py`, the bank for volumes). Bins have fixed places: nothing is
normalised by the picture, so the same surface has the same features in every picture.

References:
    Ottosson, A perceptual color space for image processing, 2020 (Oklab: lightness L, green-red a, blue-yellow b).
    Lindeberg, Feature detection with automatic scale selection, IJCV 30, 1998 (derivatives multiplied by the scale).
    Bigun and Granlund, Optimal orientation detection of linear symmetry, ICCV 1987 (the structure tensor).
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from medseg.features.frozen import FrozenBackbone

STRIDE = 4
"""Pixels per cell, along each side."""
BINS = 6
"""Soft bins per channel: all channels together are then fewer numbers than a small ViT's."""
TRUNCATE = 3.0
"""Scales at which Gaussians are cut."""
REGION_SCALE = 8.0
"""Scale in pixels over which textures are averaged: two cells, so that a region begins sharply."""
FAINT_COLOUR = 0.05
"""Oklab chroma at which a and b turn from linear to logarithmic: that of a grey stone; bins are fine there."""
FAINT_EDGE = 0.02
"""Lightness step at which signed contrast turns from linear to logarithmic: five grey values of 255."""
NOISE = 2e-3
"""Lightness added before logarithms, half a grey value of 255: below it differences mean nothing."""

_COLOUR = (-1.8, 1.8)  # asinh(a / .05): Oklab's a and b from -.15 to .15
_DETAIL = (-6.0, -2.5)  # log of lightness: .002 to .08
_STEP = (-2.0, 2.0)  # asinh(step / .02): steps of -.07 to .07

CHANNELS: Mapping[str, tuple[float, float]] = {
    "lightness": (0.0, 1.0),
    "green_red": _COLOUR,
    "blue_yellow": _COLOUR,
    "lightness_8": (0.0, 1.0),
    "green_red_8": _COLOUR,
    "blue_yellow_8": _COLOUR,
    "lightness_32": (0.0, 1.0),
    "green_red_32": _COLOUR,
    "blue_yellow_32": _COLOUR,
    "edge_1": _DETAIL,  # gradient times the scale
    "edge_2": _DETAIL,
    "edge_4": _DETAIL,
    "edge_8": _DETAIL,
    "texture_0": _DETAIL,  # rms around the cell of detail finer than scale 1: grain, speckle
    "texture_2": _DETAIL,  # rms around the cell of detail between scales 2 and 4
    "colour_texture": _DETAIL,  # sd of colour around the cell
    "contrast_8": _STEP,  # scale 8 against 16: dark to bright spots
    "line_4": _STEP,  # dark to bright lines
    "stripes": (0.0, 1.0),  # 0: edges around the cell have no direction, 1: all have the same
}
"""What is measured, with the centres of the first and the last bin; values beyond count as these. The number in a name
is the scale. Half are colours, which tell most in photographs; in a grey picture the six of hue are the same in
every cell, which adds a constant to every cosine."""

_VERSION = 1  # to be raised with every change of the measurements, so that stored features are computed anew

# Linear sRGB to the responses of the eye's three cones, and the cube roots of these to Oklab.
_CONES = (
    (0.4122214708, 0.5363325363, 0.0514459929),
    (0.2119034982, 0.6806995451, 0.1073969566),
    (0.0883024619, 0.2817188376, 0.6299787005),
)
_OKLAB = (
    (0.2104542553, 0.7936177850, -0.0040720468),
    (1.9779984951, -2.4285922050, 0.4505937099),
    (0.0259040371, 0.7827717662, -0.8086757660),
)


class _DisplayValues(nn.Identity):
    """Stands for the network: it has no weights, and wants display values 0 to 1."""

    pretrained_cfg: Mapping[str, tuple[float, ...]] = {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}


class ImageBank(FrozenBackbone):
    """The bank as a slice backbone: every feature has norm 1, every channel the same share of it.

    Two cells that agree in all channels have cosine 1; each channel in which they are more than three bins apart takes
    its whole share away.
    """

    name = "image_bank"

    def __init__(self) -> None:
        settings = (_VERSION, BINS, tuple(CHANNELS.items()))
        super().__init__(_DisplayValues(), self.name, dim=BINS * len(CHANNELS), stride=STRIDE, settings=settings)

    def _features(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b d hf wf"]:
        measured = measure(images)
        return torch.cat([_lift(measured[name], *ends) for name, ends in CHANNELS.items()], 1) / math.sqrt(
            len(CHANNELS)
        )


def measure(images: Float[Tensor, "b 3 h w"]) -> dict[str, Float[Tensor, "b 1 hf wf"]]:
    """The channels of pictures in display values 0 to 1, whose sides are multiples of `STRIDE`."""
    oklab = _oklab(images)
    cells = F.avg_pool2d(oklab, STRIDE)
    around = {8: _around(cells), 32: _smooth(cells, 32 / STRIDE)}
    measured = {}
    for suffix, colours in {"": cells, "_8": around[8], "_32": around[32]}.items():
        measured[f"lightness{suffix}"] = colours[:, :1]
        measured[f"green_red{suffix}"] = torch.asinh(colours[:, 1:2] / FAINT_COLOUR)
        measured[f"blue_yellow{suffix}"] = torch.asinh(colours[:, 2:] / FAINT_COLOUR)
    variance = (_around(cells[:, 1:].square()) - around[8][:, 1:].square()).sum(1, keepdim=True)
    measured["colour_texture"] = _log_of(variance.clamp(min=0).sqrt())

    # Scales of a cell and more lose nothing when they are measured on cells, which are 16 times fewer than pixels.
    fine = {scale: _smooth(oklab[:, :1], scale) for scale in (1, 2)}
    coarse = {scale: _smooth(cells[:, :1], scale / STRIDE) for scale in (4, 8, 16)}
    slopes = {scale: _slopes(smooth) * scale for scale, smooth in fine.items()}
    slopes |= {scale: _slopes(coarse[scale]) * (scale / STRIDE) for scale in (4, 8)}
    for scale, both in slopes.items():
        measured[f"edge_{scale}"] = _log_of(_on_cells(both.norm(dim=1, keepdim=True), cells))
    grain = oklab[:, :1] - fine[1]
    measured["texture_0"] = _log_of(_around(_on_cells(grain.square(), cells)).sqrt())
    measured["texture_2"] = _log_of(_around((_on_cells(fine[2], cells) - coarse[4]).square()).sqrt())
    measured["contrast_8"] = torch.asinh((coarse[8] - coarse[16]) / FAINT_EDGE)
    measured["line_4"] = torch.asinh(_line_strength(coarse[4]) * (4 / STRIDE) ** 2 / FAINT_EDGE)
    measured["stripes"] = _stripes(_on_cells(_products(slopes[2]), cells))
    return measured


def _oklab(images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 3 h w"]:
    """Lightness 0 to 1, green-red and blue-yellow of sRGB display values; grey has no colour."""
    shown = images.clamp(0, 1)
    linear = torch.where(shown <= 0.04045, shown / 12.92, ((shown + 0.055) / 1.055) ** 2.4)
    cones = torch.einsum("ij,bjhw->bihw", linear.new_tensor(_CONES), linear)
    return torch.einsum("ij,bjhw->bihw", linear.new_tensor(_OKLAB), cones ** (1 / 3))


def _around(cells: Float[Tensor, "b c hf wf"]) -> Float[Tensor, "b c hf wf"]:
    return _smooth(cells, REGION_SCALE / STRIDE)


def _smooth(maps: Float[Tensor, "b c h w"], sigma: float) -> Float[Tensor, "b c h w"]:
    """Gaussian; beyond the edge the outermost pixel is repeated, which any size allows."""
    reach = int(TRUNCATE * sigma + 0.5)
    offsets = torch.arange(-reach, reach + 1, dtype=maps.dtype, device=maps.device)
    kernel = torch.exp(-0.5 * (offsets / sigma) ** 2)
    kernel = (kernel / kernel.sum()).view(1, 1, 1, -1)
    single = maps.flatten(0, 1).unsqueeze(1)
    single = F.conv2d(F.pad(single, (reach, reach, 0, 0), mode="replicate"), kernel)
    single = F.conv2d(F.pad(single, (0, 0, reach, reach), mode="replicate"), kernel.transpose(2, 3))
    return single.view_as(maps)


def _slopes(maps: Float[Tensor, "b 1 h w"]) -> Float[Tensor, "b 2 h w"]:
    """Central differences per pixel along rows and columns; 0 across the edge."""
    framed = F.pad(maps, (1, 1, 1, 1), mode="replicate")
    down = framed[:, :, 2:, 1:-1] - framed[:, :, :-2, 1:-1]
    right = framed[:, :, 1:-1, 2:] - framed[:, :, 1:-1, :-2]
    return torch.cat([down, right], 1) / 2


def _line_strength(maps: Float[Tensor, "b 1 h w"]) -> Float[Tensor, "b 1 h w"]:
    """Minus the second derivative across a line, per pixel squared: above 0 on bright lines, below on dark ones."""
    framed = F.pad(maps, (1, 1, 1, 1), mode="replicate")
    middle = framed[:, :, 1:-1, 1:-1]
    down = framed[:, :, 2:, 1:-1] + framed[:, :, :-2, 1:-1] - 2 * middle
    right = framed[:, :, 1:-1, 2:] + framed[:, :, 1:-1, :-2] - 2 * middle
    mixed = (framed[:, :, 2:, 2:] + framed[:, :, :-2, :-2] - framed[:, :, 2:, :-2] - framed[:, :, :-2, 2:]) / 4
    mean, apart = (down + right) / 2, torch.hypot((down - right) / 2, mixed)
    return -torch.where(mean > 0, mean + apart, mean - apart)  # the larger in size of the Hessian's eigenvalues


def _products(slopes: Float[Tensor, "b 2 h w"]) -> Float[Tensor, "b 3 h w"]:
    down, right = slopes[:, :1], slopes[:, 1:]
    return torch.cat([down.square(), right.square(), down * right], 1)


def _stripes(products: Float[Tensor, "b 3 hf wf"]) -> Float[Tensor, "b 1 hf wf"]:
    """Coherence of the structure tensor: difference of its eigenvalues over their sum, 0 where nothing is."""
    down, right, mixed = _around(products).split(1, dim=1)
    return torch.hypot(down - right, 2 * mixed) / (down + right + NOISE**2)


def _on_cells(maps: Float[Tensor, "b c _h _w"], cells: Float[Tensor, "b _ hf wf"]) -> Float[Tensor, "b c hf wf"]:
    """Averages over cells, of maps that are not yet on them."""
    return maps if maps.shape[2:] == cells.shape[2:] else F.avg_pool2d(maps, STRIDE)


def _log_of(strength: Float[Tensor, "b 1 hf wf"]) -> Float[Tensor, "b 1 hf wf"]:
    return torch.log(strength + NOISE)


def _lift(values: Float[Tensor, "b 1 hf wf"], first: float, last: float) -> Float[Tensor, "b bins hf wf"]:
    """Gaussian bins, as wide as they lie apart, scaled to norm 1 in every cell."""
    place = (values.clamp(first, last) - first) * ((BINS - 1) / (last - first))
    numbers = torch.arange(BINS, dtype=values.dtype, device=values.device).view(1, -1, 1, 1)
    return F.normalize(torch.exp(-0.5 * (place - numbers) ** 2), dim=1)
