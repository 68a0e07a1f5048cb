"""This file puts the slices of a DICOM series in order and tells whether they make a regular grid.

Voxel axes are column index, row index and slice; slices go along the normal of their plane (row direction x column
direction), so that the axes are right-handed. *Distances* are those of the positions, never the slice thickness. A
*fault* is what makes a series irregular. Slices that lie regularly but not straight behind each other (gantry tilt)
would make a sheared grid: that is a fault too, because ITK and the viewers made of it cannot show such a grid, so that
a mask on it could not be reviewed.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from medseg.errors import MedsegError
from medseg.scans.dicom.instances import Instance
from medseg.scans.dicom.planes import Plane

_LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
_SAME_DIRECTION = 1e-3
"""Largest difference of direction cosines that is rounding; scanners write four digits or more."""
_SAME_SPACING = 1e-3
"""Largest relative difference of pixel spacings that is rounding."""
_MOST_SHEAR = 5e-4
"""Sideways shift of slices per mm of depth that is rounding of the cosines: 0.03 degrees. It is kept in the affine."""
_MOST_JITTER = 0.02
"""How far a slice may lie off its regular position, in slice distances: positions are often rounded to 0.01 mm."""
_SAME_PLACE_MM = 1e-3
_SHOWN = 3


@dataclass(frozen=True)
class Slice:
    """One frame of one object."""

    instance: Instance
    plane: Plane


@dataclass(frozen=True)
class Stack:
    """Slices in order.

    Args:
        name: what it was read from, for messages.
        frames: the slices of each volume in the same place, along the normal.
        affine: voxel index to mm, RAS+; of an irregular stack that of its first two slices.
        faults: what is irregular, in words.
        is_mendable: whether interpolation between the slices can mend it.
    """

    name: str
    frames: tuple[tuple[Slice, ...], ...]
    affine: Float[np.ndarray, "4 4"]
    faults: tuple[str, ...]
    is_mendable: bool

    @property
    def shape(self) -> tuple[int, int, int]:
        """Columns, rows, slices."""
        first = self.frames[0][0].instance
        return first.columns, first.rows, len(self.frames[0])


def require_regular(stack: Stack) -> None:
    """Refuse a stack with faults.

    Raises:
        MedsegError: so it is.
    """
    if not stack.faults:
        return
    advice = "put it on a regular grid with --resample" if stack.is_mendable else "export or choose the series again"
    raise MedsegError(f"{stack.name} must have slices on a regular grid, got {', '.join(stack.faults)}; {advice}")


def stack_of(name: str, slices: Sequence[Slice]) -> Stack:
    """Put slices in order, whatever order they are given in.

    Raises:
        MedsegError: they cannot be ordered: a position, a direction or a spacing is missing or is none.
    """
    for item in slices:
        _require_plane(item)
    along, down, normal = axes_of(slices[0].plane)
    positions = np.array([item.plane.position for item in slices])
    depths = positions @ normal
    order = sorted(range(len(slices)), key=lambda n: (depths[n], slices[n].plane.order, slices[n].plane.index))
    ordered = [slices[n] for n in order]
    faults = _unlike(ordered)
    is_mendable = not faults
    places = _places(ordered, depths[order])
    frames, repeated = _frames(places)
    if repeated:
        faults.append(repeated)
        is_mendable = False
    origins = np.array([item.plane.position for item in frames[0]])
    count = len(origins)
    step = normal * _lone_thickness(frames[0][0]) if count < 2 else (origins[-1] - origins[0]) / (count - 1)
    faults += _irregular(origins, along, down, normal)
    return Stack(name, frames, _affine(frames[0][0].plane, along, down, step), tuple(faults), is_mendable)


def axes_of(plane: Plane) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Unit vectors (LPS+) in which the column index, the row index and the slices grow; all at right angles."""
    along, down = np.array(plane.orientation[:3]), np.array(plane.orientation[3:])
    normal = np.cross(along, down)
    along, normal = along / np.linalg.norm(along), normal / np.linalg.norm(normal)
    return along, np.cross(normal, along), normal


def _require_plane(item: Slice) -> None:
    plane, name = item.plane, item.instance.place.name
    if len(plane.spacing) != 2 or not all(math.isfinite(size) and size > 0 for size in plane.spacing):
        raise MedsegError(f"{name} must say its PixelSpacing in mm, got {_numbers(plane.spacing)}; export it again")
    if not all(map(math.isfinite, (*plane.position, plane.slope, plane.intercept))):
        raise MedsegError(f"{name} must have finite positions and a finite rescale slope, got others; export it again")
    along, down = np.array(plane.orientation[:3]), np.array(plane.orientation[3:])
    off = [abs(np.linalg.norm(along) - 1), abs(np.linalg.norm(down) - 1), abs(along @ down)]
    if not max(off) < 10 * _SAME_DIRECTION:
        raise MedsegError(
            f"{name} must have an ImageOrientationPatient of two unit directions at a right angle, got "
            f"{_numbers(plane.orientation)}; export it again"
        )


def _unlike(ordered: Sequence[Slice]) -> list[str]:
    """What differs between slices that must be the same in all."""
    first, faults = ordered[0], []
    for number, item in enumerate(ordered):
        here, there = (item.instance.columns, item.instance.rows), (first.instance.columns, first.instance.rows)
        if here != there:
            faults.append(
                f"slices of {there[0]} x {there[1]} and {here[0]} x {here[1]} pixels (from slice {number + 1} on)"
            )
            break
    for number, item in enumerate(ordered):
        if np.abs(np.divide(item.plane.spacing, first.plane.spacing) - 1).max() > _SAME_SPACING:
            faults.append(
                f"pixel spacings of {_numbers(first.plane.spacing)} and {_numbers(item.plane.spacing)} mm "
                f"(from slice {number + 1} on)"
            )
            break
    directions = {tuple(np.round(item.plane.orientation, 2).tolist()) for item in ordered}
    if any(
        np.abs(np.subtract(item.plane.orientation, first.plane.orientation)).max() > _SAME_DIRECTION for item in ordered
    ):
        faults.append(f"slices of {max(len(directions), 2)} orientations, as in a scout")
    return faults


def _places(ordered: Sequence[Slice], depths: np.ndarray) -> list[list[Slice]]:
    """Slices at the same depth together."""
    places: list[list[Slice]] = [[ordered[0]]]
    for item, before, here in zip(ordered[1:], depths[:-1], depths[1:], strict=True):
        if here - before < _SAME_PLACE_MM:
            places[-1].append(item)
        else:
            places.append([item])
    for place in places:
        place.sort(key=lambda item: (item.plane.order, item.plane.index))
    return places


def _frames(places: Sequence[Sequence[Slice]]) -> tuple[tuple[tuple[Slice, ...], ...], str]:
    """The volumes of slices in the same places, and what is wrong with them, if anything."""
    counts = {len(place) for place in places}
    if len(counts) > 1:
        doubled = [place for place in places if len(place) > 1]
        told = f"{len(doubled)} of {len(places)} positions more than once (first {_files(doubled[0][:2])})"
        return (tuple(place[0] for place in places),), told
    frames = tuple(tuple(place[number] for place in places) for number in range(counts.pop()))
    if any(_furthest(frames[0], frame) > 10 * _SAME_PLACE_MM for frame in frames[1:]):
        return frames, f"{len(frames)} volumes that do not lie in the same place"
    return frames, ""


def _furthest(one: Sequence[Slice], other: Sequence[Slice]) -> float:
    offsets = np.subtract([item.plane.position for item in one], [item.plane.position for item in other])
    return float(np.abs(offsets).max())


def _irregular(origins: np.ndarray, along: np.ndarray, down: np.ndarray, normal: np.ndarray) -> list[str]:
    """What keeps the origins of slices from being equally spaced along the normal."""
    if len(origins) < 2:
        return []
    faults = []
    offsets = origins - origins[0]
    depths = offsets @ normal
    sideways = offsets @ np.stack([along, down], axis=1)
    shear = sideways[-1] / depths[-1]
    straight = np.abs(sideways - depths[:, None] * shear).max()
    distances = np.diff(depths)
    usual = float(np.median(distances))
    if straight > max(_MOST_JITTER * usual, 2 * _SAME_PLACE_MM):
        faults.append(f"slices that are shifted sideways by up to {np.abs(sideways).max():.2f} mm")
    elif np.linalg.norm(shear) > _MOST_SHEAR:
        angle_deg = math.degrees(math.atan(float(np.linalg.norm(shear))))
        faults.append(f"a gantry tilt of {angle_deg:.1f} degrees")
    regular = np.linspace(0, depths[-1], len(depths))
    if np.abs(depths - regular).max() <= _MOST_JITTER * usual:
        return faults
    gaps = distances / usual
    whole = np.round(gaps)
    if np.abs(gaps - whole).max() <= 2 * _MOST_JITTER and whole.min() >= 1:
        missing = int((whole - 1).sum())
        where = ", ".join(f"{n + 1} and {n + 2}" for n in np.flatnonzero(whole > 1)[:_SHOWN])
        faults.append(f"{missing} missing slice{'s' if missing > 1 else ''} (between slices {where})")
    else:
        found = Counter(np.round(distances, 2).tolist()).most_common(_SHOWN)
        told = ", ".join(f"{count} x {distance:g} mm" for distance, count in found)
        faults.append(f"slice distances of {told}")
    return faults


def _lone_thickness(item: Slice) -> float:
    """A slice alone has no neighbour whose distance could be told; then its thickness is all there is."""
    return item.plane.thickness or 1.0


def _affine(plane: Plane, along: np.ndarray, down: np.ndarray, step: np.ndarray) -> Float[np.ndarray, "4 4"]:
    affine = np.eye(4)
    affine[:3, 0] = along * plane.spacing[1]
    affine[:3, 1] = down * plane.spacing[0]
    affine[:3, 2] = step
    affine[:3, 3] = plane.position
    return _LPS_TO_RAS @ affine


def _files(items: Sequence[Slice]) -> str:
    return " and ".join(
        item.instance.place.path.name if item.instance.frames == 1 else f"frame {item.plane.index}" for item in items
    )


def _numbers(values: Sequence[float]) -> str:
    return " x ".join(f"{value:g}" for value in values) or "none"
