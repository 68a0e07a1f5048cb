"""This file draws the liver benchmark's best and worst pictures: the labelled outline and the mask that was found."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from jaxtyping import Bool
from liver_baselines import bounding_box
from liver_cases import Picture, Plan
from liver_scores import LIVER
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from medseg.errors import MedsegError
from medseg.files import read_json, replacing
from medseg.scans.readers import read_picture

SHOWN = 6
"""Pictures at each end."""
_TRUE, _FOUND = "#00e5ff", "#ff5252"


def draw_extremes(plan: Plan, row: str, seed: int, path: Path) -> None:
    """Draw the pictures with the highest and the lowest Dice of the union.

    Args:
        plan: says which pictures.
        row: of the table, by its key; it must be finished.
        seed: which of its masks.
        path: the PNG to write.

    Raises:
        MedsegError: the row is not finished.
    """
    cell = plan.work / "cells" / row / f"{seed}.json"
    if not cell.is_file():
        raise MedsegError(f"--worst must name a finished row, got {row}; {plan.work}/cells holds those")
    dices = {name: scores["union"] or 0.0 for name, scores in read_json(cell)["scores"].items()}
    order = sorted(dices, key=lambda name: dices[name], reverse=True)
    chosen = [*order[:SHOWN], *order[max(SHOWN, len(order) - SHOWN) :]]
    of_name = {picture.name: picture for picture in plan.report}
    figure = Figure(figsize=(2.6 * SHOWN, 5.0))
    FigureCanvasAgg(figure)
    panels = figure.subplots(2, SHOWN, squeeze=False)
    for panel in panels.flat:
        panel.set_axis_off()
    for panel, name in zip(panels.flat, chosen, strict=False):
        _draw(panel, of_name[name], plan.mask(row, seed, name) >= LIVER)
        panel.set_title(f"{name}  {dices[name]:.3f}", fontsize=9)
    figure.suptitle(f"{row}: best and worst of {len(order)}; labelled liver and mass blue, found red", fontsize=10)
    figure.subplots_adjust(left=0.005, right=0.995, bottom=0.01, top=0.88, wspace=0.03, hspace=0.1)
    with replacing(path) as beside:
        figure.savefig(beside, dpi=110, format="png")


def _draw(panel: Axes, picture: Picture, found: Bool[np.ndarray, "h w"]) -> None:
    box = bounding_box(picture.label > 0)
    grey = np.asarray(read_picture(picture.image)[:, :, :, 0]).mean(axis=0)[box]
    panel.imshow(grey, cmap="gray", vmin=0, vmax=max(float(np.percentile(grey, 99)), 1e-3))
    for mask, colour in ((picture.label >= LIVER, _TRUE), (found, _FOUND)):
        if mask[box].any() and not mask[box].all():
            panel.contour(mask[box], levels=[0.5], colors=colour, linewidths=1.2)
