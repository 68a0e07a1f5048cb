"""This file draws pictures before and after their preparation side by side, so that its effect can be judged by eye."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from medseg.files import replacing

_PAPER, _INK = "#000000", "#e8eaed"
_PANEL_INCHES = 4.0  # the longer side of a panel
_HEAD_INCHES = 0.35  # room above the panels of a row
_DPI = 130


@dataclass(frozen=True)
class BeforeAfter:
    """One picture, twice.

    Attributes:
        name: what stands above it.
        before: as it was, display values 0 to 1.
        after: as it became; its size may be another.
    """

    name: str
    before: Float[np.ndarray, "h w 3"]
    after: Float[np.ndarray, "h2 w2 3"]


def before_after_picture(rows: Sequence[BeforeAfter], path: Path, *, steps: Sequence[str] = ()) -> None:
    """Draw one row a picture: as it was, and as it became.

    Args:
        rows: at least one.
        path: of the PNG.
        steps: what was done, to stand above the right column.
    """
    aspects = np.clip([row.before.shape[0] / row.before.shape[1] for row in rows], 0.2, 5)  # a strip remains visible
    heights = _PANEL_INCHES * np.minimum(aspects, 1) + _HEAD_INCHES
    width = 2 * _PANEL_INCHES * float(np.minimum(1 / aspects, 1).max())
    figure = Figure(figsize=(width, float(heights.sum())), facecolor=_PAPER, layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(len(rows), 2, squeeze=False, height_ratios=heights)
    done = f"after {', '.join(steps)}" if steps else "after"
    for row, (left, right) in zip(rows, panels, strict=True):
        for axis, picture, title in ((left, row.before, row.name), (right, row.after, done)):
            axis.imshow(np.clip(picture, 0, 1), aspect=row.before.shape[0] / row.before.shape[1], extent=(0, 1, 0, 1))
            axis.set_title(title, color=_INK, fontsize=9, parse_math=False)
            axis.set_axis_off()
    with replacing(path) as beside:
        figure.savefig(beside, dpi=_DPI, facecolor=_PAPER, format="png")
