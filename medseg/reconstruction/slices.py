"""This file gives each axial slice of a prepared scan to the networks whole, as STEGO is evaluated.

The codes of a slice and those of its mirror image, turned back, are averaged; the mean is brought to the size of the
slice (bilinear, half-pixel), and only then compared with the prototypes. *Log-probabilities* are of clusters.

References:
    Hamilton et al., STEGO, ICLR 2022, section 4.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from medseg.errors import MedsegError
from medseg.features.backbones import to_rgb
from medseg.features.windows import display_of, is_volume_backbone

_BAND_BYTES = 64 * 2**20  # of codes at the size of the slice, which would else be the largest thing in memory


@runtime_checkable
class CodeModel(Protocol):
    """What a method must offer: codes, and the log-probability of each cluster given codes."""

    def codes(self, features: Float[Tensor, "b d hf wf"]) -> Float[Tensor, "b e hf wf"]: ...
    def log_probabilities_of(self, codes: Float[Tensor, "b e h w"]) -> Float[Tensor, "b k h w"]: ...


def slice_log_probabilities(
    sample: Mapping[str, Any],
    models: Mapping[str, CodeModel],
    backbones: Sequence[Any],
    *,
    flip: bool,
    device: torch.device,
    magnification: int = 1,
    frames: Sequence[int] | None = None,
) -> Iterator[tuple[int, dict[str, Float[Tensor, "_ h w"]]]]:
    """Yield the log-probabilities of each axial slice, by method, at its prepared size.

    Args:
        sample: a prepared picture, or a volume of which each axial slice is seen.
        models: the methods, which share the features.
        backbones: frozen slice backbones, in the order the methods were fitted on.
        flip: whether codes are averaged over the slice and its mirror image.
        device: where networks run.
        magnification: pixels shown per pixel of the slice, as in training.
        frames: the slices wanted; None: all.

    Raises:
        MedsegError: a backbone sees volumes only.
    """
    for backbone in backbones:
        if is_volume_backbone(backbone):
            raise MedsegError(
                f"features.backbone must see single slices to be shown whole ones, got {backbone.name}; "
                "use reconstruct.windows=tiled"
            )
    image = torch.as_tensor(sample["image"])
    for frame in range(image.shape[3]) if frames is None else frames:
        with torch.inference_mode():
            shown = to_rgb(image[None, ..., frame].float(), display_of(sample)).to(device)
            size = (int(shown.shape[2]), int(shown.shape[3]))
            if magnification > 1:
                shown = functional.interpolate(shown, scale_factor=magnification, mode="bilinear", align_corners=False)
            features = slice_features(shown, backbones)
            mirrored = slice_features(shown.flip(-1), backbones) if flip else None
            found = {}
            for name, model in models.items():
                codes = model.codes(features)
                if mirrored is not None:
                    codes = (codes + model.codes(mirrored).flip(-1)) / 2
                found[name] = full_log_probabilities(model, codes, size)[0]
        yield frame, found


def slice_features(pictures: Float[Tensor, "b 3 h w"], backbones: Sequence[Any]) -> Float[Tensor, "b d hf wf"]:
    """Features of whole pictures of any size; those of several backbones joined as `features.windows` joins them."""
    blocks = [backbone(pictures).float() for backbone in backbones]
    if len(blocks) == 1:
        return blocks[0]
    grid = (max(block.shape[2] for block in blocks), max(block.shape[3] for block in blocks))
    return torch.cat([functional.normalize(_resized(block, grid), dim=1) for block in blocks], dim=1)


def full_log_probabilities(
    model: CodeModel, codes: Float[Tensor, "b e hf wf"], size: tuple[int, int]
) -> Float[Tensor, "b k h w"]:
    """Log-probabilities from codes that are brought to `size` first, a band of rows at a time."""
    height, width = size
    rows = max(1, _BAND_BYTES // (4 * codes.shape[0] * codes.shape[1] * width))
    bands = (range(first, min(first + rows, height)) for first in range(0, height, rows))
    return torch.cat([model.log_probabilities_of(_rows_at(codes, band, size)) for band in bands], dim=2)


def _rows_at(codes: Float[Tensor, "b e hf wf"], rows: range, size: tuple[int, int]) -> Float[Tensor, "b e rows w"]:
    """Some rows of the codes resized to `size`: between two rows of codes first, then along the row."""
    height = codes.shape[2]
    wanted = torch.arange(rows.start, rows.stop, device=codes.device)
    place = ((wanted + 0.5) * (height / size[0]) - 0.5).clamp(0, height - 1)
    above = place.floor().long()
    below = (above + 1).clamp(max=height - 1)
    share = (place - above).to(codes.dtype)[:, None]
    between = codes[:, :, above].lerp(codes[:, :, below], share)
    return _resized(between, (len(rows), size[1]))


def _resized(maps: Float[Tensor, "b c _h _w"], size: tuple[int, int]) -> Float[Tensor, "b c h w"]:
    if tuple(maps.shape[2:]) == size:
        return maps
    return functional.interpolate(maps, size, mode="bilinear", align_corners=False)
