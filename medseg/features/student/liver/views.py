"""This file shows the liver's student a frame as another machine, probe or hand might have made it.

Its words: a *view* is what becomes of one frame and its lesson; components are changed channel by channel, echoes by
place and by brightness. Every random number comes from the generator that is given, and the place of a cell is told as
it is in the view, never flipped: on which side the liver lies is a cue.
"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float
from scipy.ndimage import gaussian_filter
from torch import Tensor
from torch.nn import functional

from medseg.features.student.liver.looks import ECHO_PIXELS, coordinates, resized

DROPPED = 0.2
"""Share of the components that a view lacks."""
GAIN_SD, OFFSET_SD, NOISE_SD = 0.15, 0.3, 0.3
"""sd of a component's factor about 1, of what is added to a component, and to each of its cells."""
MOST_SHIFT = 3
"""Cells by which components are moved, up to, along each axis; what comes in at the other side has no weight."""
TURN_SD, SCALE_SD, MOVE_SD = 0.08, 0.08, 0.08
"""sd of a view's rotation (radians), of the logarithm of its size along each axis, and of its shift (half sides)."""
BEND_SD, BEND_NODES = 0.04, 5
"""sd (half sides) of the elastic displacement at the nodes of a coarse grid of so many a side."""
LOUDER_SD, CONTRAST_SD, DEPTH_GAIN_SD = 0.25, 0.1, 0.25
"""sd of what is added to log echoes, of the logarithm of their factor, and of what is added more at the far end."""
SPECKLE, SPECKLE_PIXELS = 0.3, (0.3, 1.2)
"""Largest sd of added speckle in log echoes, and the sd of its smoothing in pixels of 64."""

View = tuple[Tensor, Tensor, Tensor]


def view_of_components(
    rng: np.random.Generator,
    components: Float[Tensor, "k h w"],
    target: Float[Tensor, "h w"],
    weight: Float[Tensor, "h w"],
) -> View:
    """Inputs of the network on frozen features, target and weight."""
    count = len(components)
    factor = (1 + GAIN_SD * rng.standard_normal(count)) * (rng.random(count) >= DROPPED)
    offset = OFFSET_SD * rng.standard_normal(count)
    noise = rng.standard_normal(tuple(components.shape), np.float32)
    noise *= np.float32(NOISE_SD)
    changed = components * _column(factor) + _column(offset) + torch.from_numpy(noise)
    down, right = (int(n) for n in rng.integers(-MOST_SHIFT, MOST_SHIFT + 1, size=2))
    changed, target, weight = (part.roll((down, right), (-2, -1)) for part in (changed, target, weight))
    weight = weight.clone()
    weight[_rolled_in(down)] = 0
    weight[:, _rolled_in(right)] = 0
    return torch.cat([changed, coordinates(components.shape[-1])]), target, weight


def view_of_echoes(
    rng: np.random.Generator,
    echoes: Float[Tensor, "h w"],
    target: Float[Tensor, "hc wc"],
    weight: Float[Tensor, "hc wc"],
) -> View:
    """Inputs of the network on echoes, target and weight, all on its grid."""
    grid = _bent_grid(rng)
    parts = torch.stack([resized(part[None, None], ECHO_PIXELS)[0, 0] for part in (target, weight)])
    seen = functional.grid_sample(echoes[None, None], grid, padding_mode="border", align_corners=False)[0, 0]
    target, weight = functional.grid_sample(parts[None], grid, padding_mode="zeros", align_corners=False)[0]
    places = coordinates(ECHO_PIXELS)
    seen = seen * float(np.exp(rng.normal(0, CONTRAST_SD))) + float(rng.normal(0, LOUDER_SD))
    seen = seen + float(rng.normal(0, DEPTH_GAIN_SD)) * places[0]
    speckle = gaussian_filter(rng.standard_normal(tuple(seen.shape), np.float32), rng.uniform(*SPECKLE_PIXELS))
    seen = seen + torch.from_numpy(speckle * np.float32(rng.uniform(0, SPECKLE) / max(float(speckle.std()), 1e-6)))
    return torch.cat([seen[None], places]), target, weight


def plain_echoes(echoes: Float[Tensor, "b h w"]) -> Float[Tensor, "b 3 h w"]:
    """Echoes as they are, with their places."""
    places = coordinates(echoes.shape[-1]).to(echoes.device).expand(len(echoes), -1, -1, -1)
    return torch.cat([echoes[:, None], places], dim=1)


def plain_components(components: Float[Tensor, "b k h w"]) -> Float[Tensor, "b c h w"]:
    """Components as they are, with their places."""
    places = coordinates(components.shape[-1]).to(components.device).expand(len(components), -1, -1, -1)
    return torch.cat([components, places], dim=1)


def _bent_grid(rng: np.random.Generator) -> Float[Tensor, "1 h w 2"]:
    """Where each pixel of a view comes from, in torch's order of x before y."""
    angle, (taller, wider) = rng.normal(0, TURN_SD), np.exp(rng.normal(0, SCALE_SD, 2))
    turn = np.array([[np.cos(angle) * wider, -np.sin(angle)], [np.sin(angle), np.cos(angle) * taller]])
    affine = torch.from_numpy(np.column_stack([turn, rng.normal(0, MOVE_SD, 2)]).astype(np.float32))
    grid = functional.affine_grid(affine[None], [1, 1, ECHO_PIXELS, ECHO_PIXELS], align_corners=False)
    nodes = torch.from_numpy(rng.normal(0, BEND_SD, (1, 2, BEND_NODES, BEND_NODES)).astype(np.float32))
    bend = functional.interpolate(nodes, (ECHO_PIXELS, ECHO_PIXELS), mode="bicubic", align_corners=True)
    return grid + bend.permute(0, 2, 3, 1)


def _column(values: np.ndarray) -> Float[Tensor, "k 1 1"]:
    return torch.from_numpy(values.astype(np.float32))[:, None, None]


def _rolled_in(shift: int) -> slice:
    """Where a roll puts what left at the other end."""
    return slice(0, shift) if shift >= 0 else slice(shift, None)
