"""This file draws how large each class is in the frames of a cine."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from medseg.files import replacing
from medseg.scoring.areas import Areas

_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
"""Okabe and Ito's, which the colour-blind can tell apart."""
_PANEL_INCHES = (7.2, 1.7)
_LEAST_INCHES = 2.9
_MARKED_FRAMES = 40
"""Frames up to which each one gets a dot; more would run together."""
_DPI = 130


def area_plot(areas: Areas, path: Path, title: str = "") -> None:
    """Draw one panel for each class that occurs, because a mass would be a flat line on the scale of a liver.

    Args:
        areas: of the frames of a cine.
        path: the PNG to write.
        title: head line.
    """
    drawn = areas.pixels if areas.cm2 is None else areas.cm2
    unit, digits = ("pixels", 0) if areas.cm2 is None else ("cm²", 2)
    shown = np.flatnonzero(areas.pixels.any(0)).tolist() or list(range(len(areas.names)))
    width, height = _PANEL_INCHES
    figure = Figure(
        figsize=(width, max(_LEAST_INCHES, height * len(shown) + 0.6)), facecolor="white", layout="constrained"
    )
    FigureCanvasAgg(figure)
    axes = figure.subplots(len(shown), 1, sharex=True, squeeze=False)[:, 0]
    frames = np.arange(1, len(drawn) + 1)
    marker = "o" if len(drawn) <= _MARKED_FRAMES else ""
    for number, (axis, c) in enumerate(zip(axes, shown, strict=True)):
        colour, area = _COLOURS[number % len(_COLOURS)], drawn[:, c]
        axis.plot(frames, area, color=colour, linewidth=1.8, marker=marker, markersize=3.5, clip_on=False)
        axis.axhline(area.mean(), color="#80868b", linewidth=1, linestyle="--")
        axis.set_title(f"{areas.names[c]}: mean {area.mean():.{digits}f} {unit} (dashed)", loc="left", fontsize=10)
        axis.set(ylim=(0, 1.12 * max(float(area.max()), np.finfo(float).tiny)), ylabel=f"area ({unit})")
        axis.grid(color="#dadce0", linewidth=0.6)
        axis.spines[["top", "right"]].set_visible(False)
    axes[-1].set(xlabel="frame", xlim=(1 - 0.01 * len(drawn), 1.01 * len(drawn)))
    axes[-1].xaxis.set_major_locator(MaxNLocator(integer=True))
    figure.align_ylabels()
    if title:
        figure.suptitle(title, fontsize=11)
    with replacing(path) as beside:
        figure.savefig(beside, dpi=_DPI, format="png")
