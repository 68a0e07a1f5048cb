"""This file says what the student of the liver looks at in a frame: echoes, where they lie, and frozen feature maps.

Its words: a *frame* is one slice of a prepared sample on the sector grid, a *cell* one of 48 x 48 in which decisions
are made; *echoes* are the logarithm of grey values on 64 x 64; the *trunk* is the frozen network, whose *maps* at
strides 8, 16 and 32 are taken in one run; *edges* and *context* are the last two as the teacher wants them.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32
from torch import Tensor
from torch.nn import functional

from medseg.features.teachers.liver import Cues, frame_cues, log_intensity, network_view, standard_edges

STAGES = (2, 3, 4)
"""Stages of the trunk at which maps are taken: strides 8, 16 and 32 of EfficientNet-Lite0."""
TRUNK_PIXELS = 384
"""Side at which the trunk is shown a frame: its cells of stride 8 are then the 48 x 48 cells."""
ECHO_PIXELS = 64
"""Side of the grid of echoes, 2.5 cells of the sector grid each: speckle is averaged away, borders are not."""


@runtime_checkable
class Trunk(Protocol):
    """A frozen network of several stages, such as `load_slice_backbone("efficientnet_lite0@4")`.

    Attributes:
        name: as configured.
        fingerprint: hash of name and weights.
    """

    name: str
    fingerprint: str

    def stage_maps(self, patches: Float[Tensor, "b 3 h w"], stages: tuple[int, ...]) -> list[Float[Tensor, "b _ _ _"]]:
        """Maps of several stages of ImageNet-normalised patches, in one run."""
        ...


class Look(NamedTuple):
    """What is seen of a frame.

    Attributes:
        echoes: log intensity.
        cues: the teacher's.
        maps: of the trunk, finest first; empty without one.
    """

    echoes: Float32[np.ndarray, "64 64"]
    cues: Cues
    maps: tuple[Float32[np.ndarray, "_ _ _"], ...]

    @property
    def edges(self) -> Float32[np.ndarray, "c 48 48"] | None:
        """What the teacher's walker sees of the maps; None without a trunk."""
        return standard_edges(self.maps[1]) if self.maps else None

    @property
    def context(self) -> Float32[np.ndarray, "d 48 48"] | None:
        """What tells the teacher the liver's surroundings; None without a trunk."""
        return standard_edges(self.maps[2]) if self.maps else None


def look_at(
    image: Float[np.ndarray, "i j"],
    region: Bool[np.ndarray, "i j"],
    trunk: Trunk | None,
    device: torch.device | str = "cpu",
) -> Look:
    """Look at a frame.

    Args:
        image: display values, 0 to 1.
        region: where the sector lies inside the picture.
        trunk: None for a student that sees echoes only.
        device: where the trunk runs.
    """
    image = np.asarray(image, np.float32)
    echoes = torch.from_numpy(np.asarray(log_intensity(image, region), np.float32))[None, None]
    small = functional.interpolate(echoes, (ECHO_PIXELS, ECHO_PIXELS), mode="bilinear", antialias=True)[0, 0]
    maps: tuple[np.ndarray, ...] = ()
    if trunk is not None:
        from medseg.features.backbones import to_rgb  # timm is heavy, and a student without a trunk needs none of it

        shown = torch.from_numpy(np.asarray(network_view(image, region), np.float32))[None, None].to(device)
        shown = functional.interpolate(shown, (TRUNK_PIXELS, TRUNK_PIXELS), mode="bilinear", align_corners=False)
        maps = tuple(found[0].float().cpu().numpy() for found in trunk.stage_maps(to_rgb(shown, "rgb"), STAGES))
    return Look(small.numpy(), frame_cues(image, region), maps)


def coordinates(side: int) -> Float[Tensor, "2 side side"]:
    """Depth and lateral position of the cells of a grid, both from -1 to 1."""
    places = (torch.arange(side) + 0.5) / side * 2 - 1
    return torch.stack(torch.meshgrid(places, places, indexing="ij"))


def resized(values: Float[Tensor, "b c h w"], side: int) -> Float[Tensor, "b c side side"]:
    """Bring maps to another grid of the same frame."""
    if values.shape[-1] == side:
        return values
    return functional.interpolate(values, (side, side), mode="bilinear", align_corners=False)
