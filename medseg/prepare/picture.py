"""This file prepares pictures, videos and volumes looked at slice by slice, for backbones that see photographs.

A picture is a volume of one slice, a video one of its frames: rows are i, columns j, frames k, and a pixel is a unit of
length. A scan comes as a stack of slices turned to R, A, S. *Display values* run from 0 (black) to 1 (white). The words
of `prepare/chain.py` hold, whose `prepare_case` runs this chain and whose `invert` brings predictions back to the
picture's own size. A sample has no tubularity, and differs in:

    image       float32 [3, i, j, k]  display values of red, green and blue; of a grey picture three times the same
    region      uint8   [1, i, j, k]  the given mask, else everything
    salience    float32 [1, i, j, k]  how much structure is there, 0 in even surfaces, 1 at strong edges; -1 outside the
                                      region, where nothing is sampled
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from monai.data import MetaTensor
from monai.transforms import Compose, DeleteItemsd, MapTransform, Orientationd, SpatialResample, Transform
from scipy.ndimage import gaussian_filter, gaussian_gradient_magnitude

from medseg.errors import MedsegError
from medseg.prepare.clear_view import clear_view as cleared
from medseg.prepare.clear_view import require_steps
from medseg.prepare.steps import LoadCase
from medseg.scans.names import is_picture

BLACK_PERCENTILE, WHITE_PERCENTILE = 0.5, 99.5
"""Of a scan's grey values, what is shown as black and as white; one window for all of its slices."""
LEAST_RESIZE = 16
"""Pixels of the shorter side below which nothing is recognised, one cell of most backbones."""
LONGEST_SIDE = 40
"""Longer sides end at so many times `resize`, and the shorter follows: a strip of 1 x 4000 pixels would else become one
of 320 x 1 280 000."""
EDGE_SHARE = 1 / 100
"""Scale of the edges that are salient, in shorter sides: 3 pixels of 320."""
SALIENT_PERCENTILE = 99.0
"""Of the edges, the strength that counts as fully salient."""

OUTSIDE = -1.0
"""Salience of pixels that are not to be looked at; STEGO, k-means and the names of clusters take no point there."""

_RAS_LABELS = (("L", "R"), ("P", "A"), ("I", "S"))


def picture_transforms(*, resize: int | None, clear_view: Sequence[str] = ()) -> Compose:
    """Build the chain for pictures.

    Args:
        resize: pixels of the shorter side, the other follows; smaller pictures are enlarged. None keeps the size.
        clear_view: steps of `prepare/clear_view.py`, for photographs through water or haze.

    Returns:
        Transforms from `{"case": Case}` to a sample; they can be pickled. Call them through `chain.prepare_case`.

    Raises:
        MedsegError: the size is too small, or a step does not exist.
    """
    if resize is not None and resize < LEAST_RESIZE:
        raise MedsegError(f"prepare.resize must be null or at least {LEAST_RESIZE} pixels, got {resize}; raise it")
    require_steps(clear_view)
    steps: list[Transform] = [
        LoadCase(),
        Orientationd(("image", "mask"), axcodes="RAS", labels=_RAS_LABELS, allow_missing_keys=True),
        DisplayValuesd("image"),
    ]
    if resize is not None:
        steps.append(Resizedd(("image", "mask"), resize))
    # After resizing: on fewer pixels it costs less, and its windows follow the size of the picture anyway.
    steps += [ClearViewd("image", clear_view), PictureRegion(), EdgeSalience(), DeleteItemsd(("case", "mask"))]
    return Compose(steps)


class DisplayValuesd(MapTransform):
    """Show grey values as red, green and blue from 0 to 1; pictures are read so, scans get a window by percentiles."""

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        shown = dict(data)
        facts = {"modality": "picture", "display": "rgb", "notes": [*data["facts"]["notes"]]}
        for key in self.key_iterator(data):
            image: torch.Tensor = data[key]
            if not is_picture(data["case"].image):
                low, high = grey_window(image.numpy())
                facts["display_window"] = [low, high]
                image = ((image - low) / (high - low)).clamp(0, 1)
            shown[key] = image.expand(3, -1, -1, -1).contiguous() if image.shape[0] == 1 else image
        return {**shown, "facts": facts}


class Resizedd(MapTransform):
    """Bring the shorter side of the slices to a length; the other follows, frames stay.

    Before shrinking the picture is smoothed, as scikit-image does, lest fine patterns turn into coarse ones.
    """

    def __init__(self, keys: str | Sequence[str], side: int) -> None:
        super().__init__(keys, allow_missing_keys=True)
        self.side = side

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        resized = dict(data)
        for key in self.key_iterator(data):
            stored: MetaTensor = data[key]
            height, width, frames = stored.shape[1:]
            scale = min(self.side / min(height, width), LONGEST_SIDE * self.side / max(height, width))
            size = (max(1, round(height * scale)), max(1, round(width * scale)))
            factors = (height / size[0], width / size[1], 1.0)
            if key == "image":
                stored = _smoothed(stored, factors)
            to_stored = torch.diag(torch.tensor([*factors, 1.0], dtype=torch.float64))
            to_stored[:3, 3] = (to_stored.diagonal()[:3] - 1) / 2  # the outer edges of the corner pixels stay in place
            resample = SpatialResample(mode="bilinear" if key == "image" else "nearest", dtype=np.float32)
            resized[key] = resample(stored, dst_affine=stored.affine @ to_stored, spatial_size=(*size, frames))
        return resized


class ClearViewd(MapTransform):
    """Take away colour cast and haze and lift contrast, frame by frame."""

    def __init__(self, keys: str | Sequence[str], steps: Sequence[str]) -> None:
        super().__init__(keys)
        self.steps = tuple(steps)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        changed = {**data, "facts": {**data["facts"], "clear_view": list(self.steps)}}
        for key in self.key_iterator(data):
            frames = [cleared(frame, self.steps) for frame in _frames(data[key])]
            values = torch.from_numpy(np.stack(frames, axis=-1)).permute(2, 0, 1, 3).contiguous()
            changed[key] = _on_grid(values, data[key], trace=True)
        return changed


class PictureRegion(Transform):
    """Add the region: the mask that was given with the picture, else all of it."""

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        image: MetaTensor = data["image"]
        inside = data["mask"].as_tensor() > 0 if "mask" in data else torch.ones(1, *image.shape[1:])
        source = "given" if "mask" in data else "whole picture"
        region = _on_grid(inside.to(torch.uint8), image, trace=False)
        return {**data, "region": region, "facts": {**data["facts"], "region_source": source}}


class EdgeSalience(Transform):
    """Add salience: edges as a share of the strong ones of this picture or video; -1 outside the region."""

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        image: MetaTensor = data["image"]
        scale = max(1.0, EDGE_SHARE * min(image.shape[1:3]))
        grey = image.as_tensor().mean(0).numpy()
        edges = np.stack([gaussian_gradient_magnitude(frame, scale) for frame in np.moveaxis(grey, -1, 0)], axis=-1)
        strong = float(np.percentile(edges, SALIENT_PERCENTILE))
        salience = np.minimum(edges / strong, 1) if strong > 0 else np.zeros_like(edges)
        values = torch.from_numpy(salience.astype(np.float32))[None]
        values[data["region"].as_tensor() == 0] = OUTSIDE
        return {**data, "salience": _on_grid(values, image, trace=False)}


def grey_window(values: Float[np.ndarray, "1 i j k"]) -> tuple[float, float]:
    """Grey values of black and white in a scan; the extremes where nearly all voxels are the same."""
    low, high = (float(v) for v in np.percentile(values, (BLACK_PERCENTILE, WHITE_PERCENTILE)))
    return (low, high) if high > low else (float(values.min()), float(values.max()))


def _smoothed(image: MetaTensor, factors: Sequence[float]) -> MetaTensor:
    """Gaussian along the axes that will shrink by these factors, each as wide as scikit-image has it."""
    sigmas = [0.0, *(max(0.0, (factor - 1) / 2) for factor in factors)]
    if not any(sigmas):
        return image
    return _on_grid(torch.from_numpy(gaussian_filter(image.numpy(), sigmas, mode="mirror")), image, trace=True)


def _frames(image: MetaTensor) -> list[Float[np.ndarray, "i j 3"]]:
    values = image.as_tensor().permute(3, 1, 2, 0).numpy()
    return list(values)


def _on_grid(values: torch.Tensor, image: MetaTensor, *, trace: bool) -> MetaTensor:
    """Values on the image's grid; with `trace` they also know the way back."""
    return MetaTensor(values, affine=image.affine, applied_operations=image.applied_operations if trace else [])
