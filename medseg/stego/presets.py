"""This file is the only place of the published weights and shifts; configs name a preset.

A preset maps field names of `StegoSettings` to values. Order of the six numbers of a row: weights of the random, knn
and self term, then their shifts.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

_ROWS: dict[str, tuple[float, float, float, float, float, float]] = {
    "default": (0.63, 0.25, 0.67, 0.46, 0.12, 0.18),
    "potsdam": (0.63, 0.25, 0.67, 0.46, 0.02, 0.08),
    "cocostuff27": (0.63, 0.25, 0.67, 0.66, 0.02, 0.08),
    "cocostuff27_earlier": (0.63, 0.25, 0.67, 0.16, 0.02, 0.08),
    "cocostuff27_vit_base": (0.1538476246415498, 1.0, 0.1, 1.0, 0.2, 0.12),
    "cocostuff27_moco": (0.63, 0.25, 0.67, 0.26, 0.36, 0.32),
    "cocostuff27_older": (0.72, 0.80, 0.29, 0.86, 0.04, 0.34),
    "cityscapes": (
        0.9058762625226623,
        0.577453483136995,
        1.0,
        0.31361241889448443,
        0.1754346515479633,
        0.45828472207,
    ),
    "cityscapes_older": (0.72, 0.18, 0.46, 0.25, 0.20, 0.25),
    "liver_vit_base": (0.11, 0.93, 0.12, 0.93, 0.21, 0.21),
    "liver_vit_small": (0.62, 0.29, 0.68, 0.64, 0.02, 0.02),
}
_MORE: dict[str, dict[str, Any]] = {
    "liver_vit_base": {
        "code_dim": 90,
        "learning_rate": 5e-5,
        "batch": 32,
        "neighbours": 5,
        "crf_weight": 1.0,
        "epochs": 100,
        "clusters": 6,
    },
}
_KEYS = ("random_weight", "knn_weight", "self_weight", "random_shift", "knn_shift", "self_shift")

PRESETS: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        name: MappingProxyType({**dict(zip(_KEYS, row, strict=True)), **_MORE.get(name, {})})
        for name, row in _ROWS.items()
    }
)

REMOVED_OPTIONS: Mapping[str, str] = MappingProxyType(
    dict.fromkeys(
        ("recalibrator", "use_recalibrator", "use_fit_model", "stop_at_zero", "repulsion_weight"),
        "the published program reads this option but does nothing with it; remove the line",
    )
    | {"checkpoint_freq": "it had no effect in the published program; use stego.checkpoint_every"}
)
