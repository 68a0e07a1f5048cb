"""This file brings the trunk's maps to a few channels of like size: standardised, clipped, principal components.

Its words: a *part* of the basis belongs to one map, a *component* is one channel of what comes out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from medseg.features.student.liver.looks import resized
from medseg.features.student.storage import as_part, part_of
from medseg.features.teachers.liver import CELLS

COMPONENTS = (24, 40, 40)
"""Components of the maps of strides 8, 16 and 32."""
CLIP_SD = 4.0
"""sd at which standardised channels are clipped, so that a rare strong response does not become a component."""
_LEAST_SD = 1e-5


@dataclass(frozen=True, eq=False)
class BasisPart:
    """How one map is projected: `axes @ clip((map - mean) / std) - offset`.

    Attributes:
        mean: of the channels.
        std: of the channels.
        axes: rows are components, scaled to unit rms over the sample they were fitted on.
        offset: of the components.
    """

    mean: Float[Tensor, " c"]
    std: Float[Tensor, " c"]
    axes: Float[Tensor, "k c"]
    offset: Float[Tensor, " k"]

    def __call__(self, maps: Float[Tensor, "b c h w"]) -> Float[Tensor, "b k h w"]:
        device = maps.device
        mean, std, axes, offset = (value.to(device) for value in (self.mean, self.std, self.axes, self.offset))
        standard = ((maps - mean[:, None, None]) / std[:, None, None]).clamp(-CLIP_SD, CLIP_SD)
        return torch.einsum("kc,bchw->bkhw", axes, standard) - offset[:, None, None]


class Basis:
    """The parts of all maps; applied to maps it gives components on the 48 x 48 cells.

    Args:
        parts: finest map first.

    Attributes:
        components: how many come out.
    """

    def __init__(self, parts: Sequence[BasisPart]) -> None:
        self.parts = tuple(parts)
        self.components = sum(len(part.axes) for part in self.parts)

    def __call__(self, maps: Sequence[Float[Tensor, "b _ _ _"]]) -> Float[Tensor, "b k 48 48"]:
        found = [resized(part(values), CELLS) for part, values in zip(self.parts, maps, strict=True)]
        return torch.cat(found, dim=1)

    def tensors(self) -> dict[str, Tensor]:
        """What `basis_from` makes it from."""
        return {name: value for n, part in enumerate(self.parts) for name, value in as_part(str(n), vars(part)).items()}


def basis_from(tensors: Mapping[str, Tensor]) -> Basis:
    """The basis of stored tensors."""
    count = 1 + max(int(name.partition(".")[0]) for name in tensors)
    return Basis([BasisPart(**part_of(tensors, str(n))) for n in range(count)])


def fit_basis(samples: Sequence[Float[Tensor, "_ _"]], components: Sequence[int] = COMPONENTS) -> Basis:
    """Fit it to channel values at some cells of every map.

    Args:
        samples: of each map; rows are cells.
        components: most of each map; a map of fewer channels has as many as these.
    """
    return Basis([_fitted(values, wanted) for values, wanted in zip(samples, components, strict=True)])


def _fitted(values: Float[Tensor, "n c"], wanted: int) -> BasisPart:
    values = values.double()
    mean, std = values.mean(0), values.std(0).clamp(min=_LEAST_SD)
    standard = ((values - mean) / std).clamp(-CLIP_SD, CLIP_SD)
    centre = standard.mean(0)
    covariance = (standard - centre).T @ (standard - centre) / len(standard)
    variances, vectors = torch.linalg.eigh(covariance)  # ascending
    axes = vectors.flip(1)[:, :wanted].T
    # The sign of an eigenvector is the library's whim; with the largest entry positive it is ours.
    axes = axes * axes.gather(1, axes.abs().argmax(1, keepdim=True)).sign()
    axes = axes / variances.flip(0)[:wanted, None].clamp(min=_LEAST_SD).sqrt()
    return BasisPart(mean.float(), std.float(), axes.float().contiguous(), (axes @ centre).float())
