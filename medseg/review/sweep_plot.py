"""This file draws what a sweep found: Dice and clDice against the number of training patches, one line a scheme."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullLocator

from medseg.files import replacing
from medseg.naming.effort import in_words
from medseg.scoring.sweeps import SCORES, SchemeAtSize

_COLOURS = ("#2f6fde", "#f08a24", "#2e9e5b", "#8e44ad", "#d64550", "#16a3a3", "#4d4d4d")
_MARKERS = ("o", "s", "^", "D", "v", "P", "*")
_DPI = 130


def sweep_plot(rows: Sequence[SchemeAtSize], path: Path, title: str = "") -> None:
    """Draw one panel a score: means over seeds as points, their SD as a band; a size alone has a whisker.

    Args:
        rows: each scheme at each of its sizes, sizes rising.
        path: the PNG to write.
        title: head line.
    """
    schemes = list(dict.fromkeys(row.scheme for row in rows))
    figure = Figure(figsize=(5.0 * len(SCORES), 4.5), facecolor="white", layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(1, len(SCORES), sharex=True, squeeze=False)[0]
    for axis, (score, heading) in zip(axes, SCORES.items(), strict=True):
        for number, scheme in enumerate(schemes):
            _draw(axis, [row for row in rows if row.scheme == scheme], score, number)
        axis.set_title(heading, loc="left", fontsize=11)
        axis.set_xlabel("training patches")
        axis.grid(color="#dadce0", linewidth=0.6)
        axis.set_axisbelow(True)
        axis.spines[["top", "right"]].set_visible(False)
    axes[0].set_xscale("log")
    # Logarithmic ticks would be far from the few numbers there are.
    counts = sorted({round(row.patches) for row in rows})
    axes[0].set_xticks(_apart(counts))
    axes[0].xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.0f}"))
    axes[0].xaxis.set_minor_locator(NullLocator())
    axes[0].margins(x=0.08)
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=min(len(labels), 7), frameon=False, fontsize=9)
    seeds = max(len(row.seeds) for row in rows)
    effort = ", ".join(dict.fromkeys(in_words(row.naming, row.effort) for row in rows))
    band = "" if seeds == 1 else ", band: SD"
    figure.suptitle(f"{title}\n{effort}; {seeds} {'seed' if seeds == 1 else 'seeds'}{band}".strip(), fontsize=10.5)
    with replacing(path) as beside:
        figure.savefig(beside, dpi=_DPI, format="png")


def _draw(axis: Axes, rows: Sequence[SchemeAtSize], score: str, number: int) -> None:
    colour, marker = _COLOURS[number % len(_COLOURS)], _MARKERS[number % len(_MARKERS)]
    patches = np.array([row.patches for row in rows])
    means = np.array([row.mean[score] for row in rows])
    sds = np.array([0.0 if math.isnan(row.sd[score]) else row.sd[score] for row in rows])
    style: dict[str, Any] = {
        "color": colour,
        "marker": marker,
        "markersize": 5.5,
        "linewidth": 1.7,
        "label": rows[0].scheme,
    }
    if len(rows) == 1:
        axis.errorbar(patches, means, yerr=sds if sds.any() else None, capsize=4, **style)
        return
    axis.plot(patches, means, **style)
    axis.fill_between(patches, means - sds, means + sds, color=colour, alpha=0.15, linewidth=0)


def _apart(counts: Sequence[int]) -> list[int]:
    """Those numbers that have room for their words on a logarithmic axis, the largest first."""
    span = math.log(max(counts) / max(min(counts), 1)) or 1.0
    kept: list[int] = []
    for count in sorted(counts, reverse=True):
        if not kept or math.log(kept[-1] / max(count, 1)) > 0.08 * span:
            kept.append(count)
    return kept
