"""This file makes the augmented view of the aug-alignment loss and says where each of its pixels came from.

The published view is flipped, cropped to .8-1 of the area, jittered in brightness and contrast by .3 and blurred over 5
pixels; its saturation, hue and grey jitter do nothing to a grey image and are left out.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional


class View(NamedTuple):
    """The draws of an augmented view: the box it shows, in edge coordinates -1..1, and how its grey values change."""

    centre: Float[Tensor, "b 2"]
    half: Float[Tensor, "b 2"]
    flipped: Bool[Tensor, " b"]
    brightness: Float[Tensor, " b"]
    contrast: Float[Tensor, " b"]
    blur_sigma: Float[Tensor, " b"]


def draw_view(batch: int, generator: torch.Generator) -> View:
    """Draw a view for each of `batch` images."""
    uniform = torch.rand((batch, 8), generator=generator)
    area = 0.8 + 0.2 * uniform[:, 0]
    ratio = torch.exp((2 * uniform[:, 1] - 1) * torch.log(torch.tensor(4 / 3)))
    half = torch.stack(((area * ratio).sqrt(), (area / ratio).sqrt()), dim=1).clamp_max(1)
    return View(
        centre=(1 - half) * (2 * uniform[:, 2:4] - 1),
        half=half,
        flipped=uniform[:, 4] < 0.5,
        brightness=1 + 0.3 * (2 * uniform[:, 5] - 1),
        contrast=1 + 0.3 * (2 * uniform[:, 6] - 1),
        blur_sigma=0.1 + 1.9 * uniform[:, 7],
    )


def view_coordinates(view: View, size: tuple[int, int]) -> Float[Tensor, "b h w 2"]:
    """For each pixel centre of a view of `size`, its (x, y) in the original, where -1 and 1 are pixel *centres*."""
    counts = (size[1], size[0])
    axes = []
    for axis, count in enumerate(counts):
        inside = (2 * torch.arange(count, device=view.half.device) + 1) / count - 1
        half = view.half[:, axis]
        if axis == 0:
            half = torch.where(view.flipped, -half, half)
        edge = view.centre[:, axis, None] + half[:, None] * inside
        pixel = ((edge + 1) * count - 1) / 2
        axes.append(2 * pixel / max(count - 1, 1) - 1)
    x, y = axes
    return torch.stack(torch.broadcast_tensors(x[:, None, :], y[:, :, None]), dim=-1)


def show(view: View, image: Float[Tensor, "b *c h w"]) -> Float[Tensor, "b *c h w"]:
    """The augmented image, of the size of the original; colours change alike."""
    if image.ndim == 3:
        return show(view, image[:, None])[:, 0]
    size = (int(image.shape[2]), int(image.shape[3]))
    grid = view_coordinates(view, size).to(image)
    shown = functional.grid_sample(image, grid, padding_mode="border", align_corners=True)
    shown = shown * view.brightness.to(image)[:, None, None, None]
    mean = shown.mean((1, 2, 3), keepdim=True)
    shown = (shown - mean) * view.contrast.to(image)[:, None, None, None] + mean
    offset = torch.arange(-2, 3, device=image.device)
    kernel = torch.exp(-(offset**2) / (2 * view.blur_sigma.to(image)[:, None] ** 2))
    kernel = kernel / kernel.sum(1, keepdim=True)
    channels = image.shape[1]
    kernels = kernel.repeat_interleave(channels, 0)
    padded = functional.pad(shown.flatten(0, 1)[None], (2, 2, 2, 2), mode="replicate")
    across = functional.conv2d(padded, kernels[:, None, None, :], groups=len(kernels))
    return functional.conv2d(across, kernels[:, None, :, None], groups=len(kernels))[0].unflatten(0, (-1, channels))
