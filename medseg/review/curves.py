"""This file draws precision against recall: how well similarities of places predict that labels are the same."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from medseg.files import replacing
from medseg.scoring.precision_recall import PrecisionRecall

_COLOURS = ("#2f6fde", "#f08a24", "#2e9e5b", "#8e44ad")
_MOST_POINTS = 2000  # of a drawn line; more cannot be told apart
_DPI = 130


def precision_recall_plot(
    panels: Mapping[str, tuple[Mapping[str, PrecisionRecall], float]], path: Path, title: str = ""
) -> None:
    """Draw one panel for each kind of pairs, one line for each similarity, with its average precision in the legend.

    Args:
        panels: for each kind its curves by name, and the share of its pairs that have the same label: what drawing lots
            would reach, drawn as a dashed line.
        path: the PNG to write.
        title: head line.
    """
    figure = Figure(figsize=(4.6 * len(panels), 4.4), facecolor="white", layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(1, len(panels), squeeze=False)[0]
    for axis, (heading, (curves, chance)) in zip(axes, panels.items(), strict=True):
        for colour, (name, curve) in zip(_COLOURS, curves.items(), strict=False):  # colours to spare
            shown = np.unique(np.linspace(0, len(curve.recall) - 1, _MOST_POINTS).astype(int))
            label = f"{name} (AP {curve.average:.2f})"
            axis.plot(curve.recall[shown], curve.precision[shown], color=colour, linewidth=1.8, label=label)
        axis.axhline(chance, color="#80868b", linewidth=1, linestyle="--", label=f"chance ({chance:.2f})")
        axis.set(xlim=(0, 1), ylim=(0, 1.02), xlabel="recall", ylabel="precision")
        axis.set_title(heading, loc="left", fontsize=10)
        axis.grid(color="#dadce0", linewidth=0.6)
        axis.spines[["top", "right"]].set_visible(False)
        axis.legend(loc="lower left", fontsize=8.5, framealpha=0.9)
    if title:
        figure.suptitle(title, fontsize=11)
    with replacing(path) as beside:
        figure.savefig(beside, dpi=_DPI, format="png")
