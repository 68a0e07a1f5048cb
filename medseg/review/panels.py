"""This file draws what an evaluation looks at: pictures beside their label maps, and confusion matrices.

A *panel* is one map of a picture: its label, or what a method says. Classes have their own colours; a chequered pixel
has no class: it is unlabelled, or its cluster carries no name. *Dark* pages are for slides and dim rooms.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float, Integer, Shaped
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LinearSegmentedColormap, to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from medseg.files import replacing

NO_CLASS = -1
"""Value of a pixel without a class."""
_DPI = 130
_PANEL_INCHES, _CELL_INCHES = 2.4, 0.46
_CHEQUERS = 32  # squares along the longer side


@dataclass(frozen=True)
class _Look:
    """Colours of a page."""

    page: str
    ink: str
    pale: str
    chequers: tuple[str, str]
    full: str


_LIGHT = _Look("#ffffff", "#202124", "#5f6368", ("#f1f3f4", "#c4c7cc"), "#174ea6")
_DARK = _Look("#121316", "#e8eaed", "#9aa0a6", ("#3c4043", "#1f2124"), "#8ab4f8")


def panel_picture(
    path: Path,
    picture: Shaped[np.ndarray, "h w 3"],
    panels: Mapping[str, Integer[np.ndarray, "h w"]],
    *,
    names: Mapping[int, str],
    colours: Mapping[int, str],
    title: str = "",
    dark: bool = False,
) -> None:
    """Draw a picture and beside it its label maps, with a legend of the classes that occur.

    Args:
        path: the PNG to write.
        picture: uint8, or from 0 to 1.
        panels: class value of each pixel (`NO_CLASS` for none), by the heading of the panel.
        names: of the classes, by value.
        colours: `#rrggbb`, by value.
        title: head line.
        dark: light letters on a dark page.
    """
    look = _DARK if dark else _LIGHT
    height, width = picture.shape[:2]
    tall = min(max(_PANEL_INCHES * height / width, 0.6), 2 * _PANEL_INCHES)
    values = sorted({int(value) for labels in panels.values() for value in np.unique(labels)})
    known = [value for value in values if value >= 0]
    legend = [
        Patch(facecolor=colours[value], edgecolor=look.pale, linewidth=0.5, label=names[value]) for value in known
    ]
    if values and values[0] < 0:
        legend.append(Patch(facecolor=look.chequers[0], edgecolor=look.chequers[1], hatch="xxxx", label="no class"))
    across = _PANEL_INCHES * (1 + len(panels))
    columns = max(1, int(across / 1.6))
    foot = 0.24 * -(-len(legend) // columns) + 0.08
    head = 0.62 if title else 0.34
    figure = _page((across, head + tall + foot), look)
    axes = figure.subplots(1, 1 + len(panels), squeeze=False)[0]
    down = head + tall + foot
    figure.subplots_adjust(
        left=0.03 / across, right=1 - 0.03 / across, top=1 - head / down, bottom=foot / down, wspace=0.03
    )
    maps = {heading: _coloured(labels, colours, look) for heading, labels in panels.items()}
    for axis, (heading, shown) in zip(axes, {"image": picture, **maps}.items(), strict=True):
        axis.imshow(shown, interpolation="nearest" if heading in maps else "antialiased")
        axis.set_axis_off()
        axis.set_title(heading, color=look.ink, fontsize=9, pad=4)
    if title:
        figure.suptitle(title, color=look.ink, fontsize=10.5, y=1 - 0.08 / down, va="top")
    figure.legend(
        handles=legend, loc="lower center", ncols=min(columns, len(legend) or 1), frameon=False, fontsize=8,
        labelcolor=look.ink, handlelength=1.1, handleheight=1.0, columnspacing=1.2, borderaxespad=0.1,
    )  # fmt: skip
    _save(figure, path)


def confusion_picture(
    path: Path,
    counts: Integer[np.ndarray, "rows classes"],
    names: Sequence[str],
    *,
    title: str = "",
    dark: bool = False,
) -> None:
    """Draw a confusion matrix: for each true class (a line) the percentages that were given each class.

    Args:
        path: the PNG to write.
        counts: see `medseg.scoring.segmentation`; its last row becomes the column `no class`, if it holds pixels.
        names: of the classes.
        title: head line.
        dark: light letters on a dark page.
    """
    look = _DARK if dark else _LIGHT
    columns = [*names, "no class"] if counts[len(names) :].any() else [*names]
    table = counts.T[:, : len(columns)]
    true = table.sum(axis=1, keepdims=True)
    shares = np.divide(table, true, out=np.zeros(table.shape), where=true > 0)
    longest = 0.085 * max(len(name) for name in columns)
    size = (longest + 1.6 + _CELL_INCHES * len(columns), longest + 1.3 + _CELL_INCHES * len(names))
    figure = _page(size, look)
    figure.set_layout_engine("constrained")
    axis = figure.subplots()
    ramp = LinearSegmentedColormap.from_list("share", [look.page, look.full])
    axis.imshow(shares, cmap=ramp, vmin=0, vmax=1)
    for (line, column), share in np.ndenumerate(shares):
        if true[line, 0]:
            letters = _readable(ramp(float(share))[:3], look) if share >= 0.005 else look.pale
            axis.text(column, line, f"{100 * share:.0f}", ha="center", va="center", color=letters, fontsize=8)
    _label_axes(axis, columns, names, true[:, 0] / max(int(true.sum()), 1), look)
    axis.set_title(title, color=look.ink, fontsize=10.5, pad=8)
    _save(figure, path)


def _label_axes(
    axis: Axes, columns: Sequence[str], names: Sequence[str], shares: Float[np.ndarray, " classes"], look: _Look
) -> None:
    """Names at the ticks, and beside each true class the share of all labelled pixels that it holds."""
    axis.set_xticks(range(len(columns)), columns, rotation=45, ha="right", rotation_mode="anchor")
    axis.set_yticks(
        range(len(names)), [f"{name}  ({100 * share:.1f} %)" for name, share in zip(names, shares, strict=True)]
    )
    axis.set_xlabel("given class, % of the true class", color=look.pale, fontsize=8.5)
    axis.set_ylabel("true class (share of all pixels)", color=look.pale, fontsize=8.5)
    axis.tick_params(colors=look.ink, labelsize=8.5, length=0)
    axis.set_xticks(np.arange(len(columns) + 1) - 0.5, minor=True)
    axis.set_yticks(np.arange(len(names) + 1) - 0.5, minor=True)
    axis.grid(which="minor", color=look.chequers[0], linewidth=0.6)
    axis.tick_params(which="minor", length=0)
    axis.spines[:].set_visible(False)


def _readable(ground: tuple[float, ...], look: _Look) -> str:
    """The page's ink or its paper, whichever stands out more from a colour (contrast ratio of WCAG 2)."""
    behind = _luminance(ground)

    def contrast(colour: str) -> float:
        light, dark = sorted((_luminance(to_rgb(colour)), behind), reverse=True)
        return (light + 0.05) / (dark + 0.05)

    return max((look.ink, look.page), key=contrast)


def _luminance(colour: tuple[float, ...]) -> float:
    return float(np.dot(np.power(colour, 2.2), (0.2126, 0.7152, 0.0722)))


def _coloured(
    labels: Integer[np.ndarray, "h w"], colours: Mapping[int, str], look: _Look
) -> Float[np.ndarray, "h w 3"]:
    """Colours of the classes, chequers where there is none."""
    side = max(1, max(labels.shape) // _CHEQUERS)
    rows, columns = np.indices(labels.shape)
    drawn = np.array([to_rgb(colour) for colour in look.chequers])[(rows // side + columns // side) % 2]
    for value in np.unique(labels[labels >= 0]).tolist():
        drawn[labels == value] = to_rgb(colours[value])
    return drawn


def _page(size: tuple[float, float], look: _Look) -> Figure:
    figure = Figure(figsize=size, facecolor=look.page)
    FigureCanvasAgg(figure)
    return figure


def _save(figure: Figure, path: Path) -> None:
    with replacing(path) as beside:
        figure.savefig(beside, dpi=_DPI, facecolor=figure.get_facecolor(), format="png")
