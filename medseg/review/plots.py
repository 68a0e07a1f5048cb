"""This file draws scans, masks and scores as PNG pictures.

Arrays are RAS `[i, j, k]`. *MIP*: maximum intensity projection along one axis. Pictures follow the radiological
convention (the patient's right is on the left, as if seen from the feet or from the front; sagittal views face left),
in true proportions of mm, with the letters R L A P S I at the edges. No window opens: figures are rendered by Agg.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Integer
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke

from medseg.files import replacing
from medseg.naming.effort import in_words
from medseg.scoring.overlap import UNION
from medseg.scoring.tables import METRICS, ScoreRow, aggregate

_BACKGROUND = "#000000"
_INK = "#e8eaed"
_PALE = "#9aa0a6"
_PALETTE = ("#ff4d5e", "#3ddc84", "#5b8cff", "#ffb02e", "#c77dff", "#4dd0e1", "#ff7ad9", "#d4e157")
_DPI = 130


@dataclass(frozen=True)
class Plane:
    """How a plane is shown: the axis it looks along, and the letters at left, right, top and bottom."""

    name: str
    axis: int
    letters: tuple[str, str, str, str]


PLANES = (
    Plane("axial", 2, ("R", "L", "A", "P")),
    Plane("coronal", 1, ("R", "L", "S", "I")),
    Plane("sagittal", 0, ("A", "P", "S", "I")),
)


@dataclass(frozen=True)
class DemoRow:
    """One case of the demo picture.

    Attributes:
        case_id: its name.
        image: the scan.
        predicted: our mask.
        spacing: voxel size in mm.
        reference: the true mask, where there is one.
        region: the region that was looked at; the scan's projection is limited to it.
        scores: what to write below the name, `dice` and `cldice` of `METRICS`.
    """

    case_id: str
    image: Float[np.ndarray, "i j k"]
    predicted: Bool[np.ndarray, "i j k"]
    spacing: tuple[float, float, float]
    reference: Bool[np.ndarray, "i j k"] | None = None
    region: Bool[np.ndarray, "i j k"] | None = None
    scores: Mapping[str, float] = field(default_factory=dict)


def orient(plane_values: np.ndarray) -> np.ndarray:
    """Turn a RAS plane (its two remaining axes in order) to rows from the top and columns from the left."""
    return np.flip(np.swapaxes(plane_values, 0, 1), axis=(0, 1))


def mip_picture(
    image: Float[np.ndarray, "i j k"],
    mask: Integer[np.ndarray, "i j k"] | Bool[np.ndarray, "i j k"] | None,
    spacing: tuple[float, float, float],
    path: Path,
    title: str = "",
    *,
    region: Bool[np.ndarray, "i j k"] | None = None,
    colours: Mapping[int, str] | None = None,
) -> None:
    """Draw axial, coronal and sagittal projections of a scan, and beside them the same with the mask over it.

    Args:
        image: the scan, in any unit.
        mask: bool or integer labels; without one only the scan is drawn.
        spacing: voxel size in mm.
        path: the PNG to write.
        title: head line.
        region: where given, the scan is projected inside it only, so that scalp and fat do not hide what lies in it.
        colours: `#rrggbb` by label value.
    """
    window = _window(image, region)
    shown = image if region is None else np.where(region, image, image.min())
    columns = 1 if mask is None else 2
    figure, axes = _grid([[plane] * columns for plane in PLANES], image.shape, spacing, title)
    for row, plane in zip(axes, PLANES, strict=True):
        grey = _grey(orient(shown.max(axis=plane.axis)), window)
        _show(row[0], grey, plane, spacing)
        if mask is not None:
            layer = _shaded(mask, plane.axis, colours)
            alpha = 0.85 * layer[..., 3:]
            _show(row[1], (1 - alpha) * 0.55 * grey + alpha * layer[..., :3], plane, spacing)
    if mask is not None and not np.any(mask):
        _note(axes[0][1], "the mask is empty")
    _save(figure, path)


def overlay_picture(
    image: Float[np.ndarray, "i j k"],
    mask: Integer[np.ndarray, "i j k"] | Bool[np.ndarray, "i j k"],
    spacing: tuple[float, float, float],
    path: Path,
    title: str = "",
    *,
    region: Bool[np.ndarray, "i j k"] | None = None,
    colours: Mapping[int, str] | None = None,
) -> None:
    """Draw three axial slices, above the bare scan and below the mask's contour on it.

    Args:
        image: the scan, in any unit.
        mask: bool or integer labels.
        spacing: voxel size in mm.
        path: the PNG to write.
        title: head line.
        region: sets the grey window; nothing is hidden.
        colours: `#rrggbb` by label value.
    """
    window = _window(image, region)
    slices = informative_slices(mask)
    plane = PLANES[0]
    figure, axes = _grid([[plane] * len(slices)] * 2, image.shape, spacing, title)
    for column, k in enumerate(slices):
        grey = _grey(orient(image[:, :, k]), window)
        _show(axes[0][column], grey, plane, spacing, heading=f"axial, k = {k}")
        _show(axes[1][column], grey, plane, spacing)
        for colour, outline in _outlined(orient(mask[:, :, k]), colours):
            axes[1][column].contour(outline, levels=[0.5], colors=[colour], linewidths=1.1, antialiased=True)
    if not np.any(mask):
        _note(axes[1][len(slices) // 2], "the mask is empty")
    _save(figure, path)


def informative_slices(mask: Integer[np.ndarray, "i j k"] | Bool[np.ndarray, "i j k"], count: int = 3) -> list[int]:
    """The fullest axial slice in each of `count` parts of the volume that hold equally much of the mask.

    Returns:
        Slice indices from bottom to top, each once; an empty mask gives evenly spread ones.
    """
    areas = np.count_nonzero(mask, axis=(0, 1))
    if not areas.any():
        areas = np.ones_like(areas)
    part = np.ceil(np.cumsum(areas) / areas.sum() * count).astype(int)
    chosen = []
    for index in range(1, count + 1):
        members = np.flatnonzero((part == index) & (areas > 0))
        if members.size:
            fullest = members[areas[members] == areas[members].max()]
            chosen.append(int(fullest[len(fullest) // 2]))
    return chosen


def demo_picture(
    rows: Sequence[DemoRow], path: Path, title: str = "", *, predicted_heading: str = "medseg, without labels"
) -> None:
    """Draw one row a case: projection of the scan, of our mask, and of the reference where there is one.

    Masks are shaded by depth (bright is near the viewer, at the feet), so that crossing vessels can be told apart.
    """
    plane = PLANES[0]
    headings = ["scan", predicted_heading] + ["reference"] * any(row.reference is not None for row in rows)
    columns = len(headings)
    side = 2.6
    figure = Figure(figsize=(side * columns + 1.4, side * len(rows) + (0.75 if title else 0.4)), facecolor=_BACKGROUND)
    FigureCanvasAgg(figure)
    axes = figure.subplots(len(rows), columns, squeeze=False)
    width, height = figure.get_size_inches()
    figure.subplots_adjust(
        left=1.35 / width,
        right=1 - 0.05 / width,
        top=1 - (0.65 if title else 0.3) / height,
        bottom=0.08 / height,
        wspace=0.03,
        hspace=0.04,
    )
    for row_axes, row in zip(axes, rows, strict=True):
        shown = row.image if row.region is None else np.where(row.region, row.image, row.image.min())
        pictures = [_grey(orient(shown.max(axis=plane.axis)), _window(row.image, row.region))]
        pictures.append(_shaded(row.predicted, plane.axis, None)[..., :3])
        if row.reference is not None:
            pictures.append(_shaded(row.reference, plane.axis, {1: "#f2f4f8"})[..., :3])
        for column, axis in enumerate(row_axes):
            if column < len(pictures):
                _show(axis, pictures[column], plane, row.spacing, letters=column == 0)
            else:
                _bare(axis)
        words = [row.case_id] + [
            f"{METRICS[key]} {row.scores[key]:.2f}" for key in ("dice", "cldice") if key in row.scores
        ]
        first = row_axes[0]
        first.text(-0.06, 0.56, words[0], transform=first.transAxes, ha="right", va="bottom", color=_INK, fontsize=11)
        first.text(
            -0.06,
            0.52,
            "\n".join(words[1:]),
            transform=first.transAxes,
            ha="right",
            va="top",
            color=_PALE,
            fontsize=8.5,
        )
    for axis, heading in zip(axes[0], headings, strict=True):
        axis.set_title(heading, color=_INK, fontsize=10, pad=5)
    if title:
        figure.suptitle(title, color=_INK, fontsize=12, y=1 - 0.1 / height, va="top")
    _save(figure, path)


def score_plot(rows: Sequence[ScoreRow], path: Path, title: str = "") -> None:
    """Draw Dice and clDice of every method: bars for the mean, whiskers for its 95 % interval, dots for the cases."""
    aggregates = [entry for entry in aggregate(rows) if entry.structure == UNION]
    figure = Figure(figsize=(7.2, 0.62 * len(aggregates) + 1.2), facecolor="white", layout="constrained")
    FigureCanvasAgg(figure)
    axis = figure.subplots()
    for offset, metric, colour in ((-0.19, "dice", "#2f6fde"), (0.19, "cldice", "#f08a24")):
        for index, entry in enumerate(aggregates):
            found = entry.spreads[metric]
            cases = [
                row.scores[metric]
                for row in rows
                if (row.method, row.naming, row.effort, row.region, row.structure)
                == (entry.method, entry.naming, entry.effort, entry.region, UNION)
            ]
            axis.barh(
                index + offset,
                found.mean,
                height=0.34,
                color=colour,
                alpha=0.85,
                label=METRICS[metric] if not index else None,
            )
            axis.plot([found.low, found.high], [index + offset] * 2, color="#202124", linewidth=1.4, zorder=3)
            axis.scatter(
                cases, [index + offset] * len(cases), s=9, color="white", edgecolors="#202124", linewidths=0.6, zorder=4
            )
    names = [f"{entry.method}\n({in_words(entry.naming, entry.effort)})" for entry in aggregates]
    axis.set_yticks(range(len(aggregates)), names)
    axis.invert_yaxis()
    axis.set_xlim(0, 1)
    axis.grid(axis="x", color="#dadce0", linewidth=0.7)
    axis.set_axisbelow(True)
    axis.spines[["top", "right", "left"]].set_visible(False)
    axis.tick_params(left=False)
    axis.set_title(title, loc="left", fontsize=11)
    figure.legend(loc="outside lower right", ncols=2, frameon=False, fontsize=9)
    _save(figure, path)


def _grid(
    planes: Sequence[Sequence[Plane]], shape: tuple[int, ...], spacing: tuple[float, float, float], title: str
) -> tuple[Figure, Any]:
    """A dark figure with one panel a plane, rows and columns as large as what stands in them."""
    sizes = np.asarray([[_size_mm(plane, shape, spacing) for plane in row] for row in planes])
    # A scan of one slice would leave no room to show it from the side.
    sizes = np.maximum(sizes, sizes.max() / 12) * 3.6 / sizes.max()
    widths, heights = sizes[..., 0].max(axis=0), sizes[..., 1].max(axis=1)
    head, gap = (0.55 if title else 0.3), 0.06
    across = widths.sum() + gap * (len(widths) + 1)
    down = heights.sum() + gap * len(heights) + head
    figure = Figure(figsize=(across, down), facecolor=_BACKGROUND)
    FigureCanvasAgg(figure)
    axes = figure.subplots(*sizes.shape[:2], squeeze=False, width_ratios=widths, height_ratios=heights)
    figure.subplots_adjust(
        left=gap / across,
        right=1 - gap / across,
        top=1 - head / down,
        bottom=gap / down,
        wspace=gap / widths.mean(),
        hspace=gap / heights.mean(),
    )
    if title:
        figure.suptitle(title, color=_INK, fontsize=11, y=1 - 0.1 / down, va="top")
    return figure, axes


def _size_mm(plane: Plane, shape: tuple[int, ...], spacing: tuple[float, float, float]) -> tuple[float, float]:
    """Width and height of a view in mm."""
    across, up = (axis for axis in range(3) if axis != plane.axis)
    return shape[across] * spacing[across], shape[up] * spacing[up]


def _show(
    axis: Axes,
    picture: np.ndarray,
    plane: Plane,
    spacing: tuple[float, float, float],
    *,
    heading: str = "",
    letters: bool = True,
) -> None:
    """Put an oriented picture `[h, w, 3]` on its panel, with its letters."""
    across, up = (spacing[index] for index in range(3) if index != plane.axis)
    axis.imshow(np.clip(picture, 0, 1), aspect=up / across, interpolation="bilinear")
    _bare(axis)
    if heading:
        axis.set_title(heading, color=_PALE, fontsize=9, pad=4)
    if letters:
        places = (
            (0.02, 0.5, "left", "center"),
            (0.98, 0.5, "right", "center"),
            (0.5, 0.98, "center", "top"),
            (0.5, 0.02, "center", "bottom"),
        )
        for letter, (x, y, ha, va) in zip(plane.letters, places, strict=True):
            written = axis.text(x, y, letter, transform=axis.transAxes, ha=ha, va=va, color=_INK, fontsize=8)
            written.set_path_effects([withStroke(linewidth=2, foreground=_BACKGROUND)])


def _bare(axis: Axes) -> None:
    axis.set_axis_off()
    axis.set_facecolor(_BACKGROUND)


def _note(axis: Axes, words: str) -> None:
    axis.text(0.5, 0.5, words, transform=axis.transAxes, ha="center", va="center", color=_INK, fontsize=10)


def _window(image: Float[np.ndarray, "i j k"], region: Bool[np.ndarray, "i j k"] | None) -> tuple[float, float]:
    """Darkest and brightest grey: nearly the whole range, but no single bright voxel decides."""
    values = image[region] if region is not None and region.any() else image
    low, high = np.percentile(values, [2, 99.9])
    return float(low), float(max(high, low + 1e-6))


def _grey(plane_values: np.ndarray, window: tuple[float, float]) -> Float[np.ndarray, "h w 3"]:
    low, high = window
    scaled = np.clip((plane_values.astype(np.float64) - low) / (high - low), 0, 1) ** 0.9
    return np.repeat(scaled[:, :, None], 3, axis=2)


def _colour(value: int, colours: Mapping[int, str] | None) -> str:
    return (colours or {}).get(value, _PALETTE[(value - 1) % len(_PALETTE)])


def _outlined(plane_labels: np.ndarray, colours: Mapping[int, str] | None) -> list[tuple[str, np.ndarray]]:
    """Colour and 0/1 picture of each class in a slice that has an outline."""
    found = []
    for value in sorted({*np.unique(plane_labels).tolist()} - {0}):
        inside = (plane_labels == value).astype(float)
        if inside.min() < 1 and min(inside.shape) > 1:
            found.append((_colour(int(value), colours), inside))
    return found


def _shaded(labels: np.ndarray, axis: int, colours: Mapping[int, str] | None) -> Float[np.ndarray, "h w 4"]:
    """Labels as seen along an axis: the nearest one's colour, darker with its distance; transparent where none is."""
    # The viewer of an axial, coronal or sagittal picture stands at the feet, in front, and at the patient's left.
    seen = np.flip(labels, axis=1) if axis == 1 else labels
    depth = (seen > 0).argmax(axis=axis)
    nearest = np.take_along_axis(seen, np.expand_dims(depth, axis), axis).squeeze(axis).astype(int)
    drawn = nearest > 0
    shade = np.zeros(drawn.shape)
    if drawn.any():
        near, far = depth[drawn].min(), depth[drawn].max()
        shade[drawn] = 1 - 0.6 * (depth[drawn] - near) / max(far - near, 1)
    palette = np.zeros((int(nearest.max()) + 1, 3))
    for value in np.unique(nearest[drawn]).tolist():
        palette[value] = to_rgb(_colour(value, colours))
    return orient(np.dstack([shade[..., None] * palette[nearest], drawn]))


def _save(figure: Figure, path: Path) -> None:
    with replacing(path) as beside:
        figure.savefig(beside, dpi=_DPI, facecolor=figure.get_facecolor(), format="png")
