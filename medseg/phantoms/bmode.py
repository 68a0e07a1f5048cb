"""This file does to a scene what an ultrasound scanner does: speckle, shadows, gain, compression, scan conversion.

*Samples* run along a beam and *lines* across the beams. Scatterers are fixed to the tissue: a *grain* is a complex
random number for each small square of it, and moving tissue takes its grains along. The echo is what lies within the
scanner's *pulse*, which is short along the beam and wide across it, wider in depth. References: J. W. Goodman,
Statistical properties of laser speckle patterns, 1975 (the envelope of full speckle is Rayleigh distributed);
R. F. Wagner et al., Statistics of speckle in ultrasound B-scans, IEEE Trans. Sonics Ultrason. 30, 1983.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Complex64, Float32, UInt8
from scipy import ndimage, signal

from medseg.phantoms.probes import View
from medseg.phantoms.scenes import Maps, Scene, skin_depth
from medseg.phantoms.shapes import Points

GRAINS_IN_DEPTH = 420
"""Grains along the depth: about two within a pulse."""
_FIELD_MM = 1.0
"""Step of the slow textures."""
_PULSE_NODES = 5
"""Depths at which the blur is computed; between them it is interpolated."""
_AXIAL_MM, _LATERAL_MM = (0.28, 0.0012), (0.42, 0.0068)
"""Sigma of the pulse at the face, and by how much it grows with each mm of range (3 MHz, aperture about 25 mm)."""
HIDDEN_DB = 18.0
"""Loss in shadow from which nobody can tell what lies there."""
_DIRTY_DB, _DIRTY_MM = 2.0, 26.0
"""Brightness of the haze right below gas, and the length over which it fades by 8.7 dB."""

_TAIL, _TAIL_MM = 1.0, 5.0
"""Share of a strong surface's echo that goes back and forth below it, and the length over which that fades."""


@dataclass(frozen=True)
class Scanner:
    """The settings of the scanner.

    Attributes:
        liver_grey: display value (0..1) of the liver's speckle without gain errors.
        range_db: from black to white.
        looks: independent echoes that are averaged (spatial compounding); 1 for none.
        noise_db: electronic noise at the end of the beams.
        gain_db: error of the gain at five depths.
        contact_db: loss at five places along the face, where the probe leaves the skin.
        smooth: sigma (samples) of the smoothing of the displayed picture.
        tint: red, green and blue of white.
    """

    liver_grey: float = 0.33
    range_db: float = 60.0
    looks: int = 1
    noise_db: float = -25.0
    gain_db: tuple[float, ...] = (0.0, 0.0, 0.0, 0.0, 0.0)
    contact_db: tuple[float, ...] = (0.0, 0.0, 0.0, 0.0, 0.0)
    smooth: float = 0.5
    tint: tuple[float, float, float] = (1.0, 1.0, 1.0)


class Tissue:
    """Grains and textures, fixed to the tissue.

    Args:
        rng: the source.
        view: how far they must reach.
        looks: sets of grains.
    """

    def __init__(self, rng: np.random.Generator, view: View, looks: int) -> None:
        self.rng = rng
        half = (view.radius_mm + view.depth_mm) * np.sin(view.half_angle) + 20
        self.step = view.depth_mm / GRAINS_IN_DEPTH
        self.left, self.top = -half, -25.0
        self.extent = (view.depth_mm + 50, 2 * half)
        self.grains = [self._grains() for _ in range(looks)]
        self.power: Float32[np.ndarray, "r 1"] | None = None  # amplitude that the pulse leaves of the grains
        shape = [int(length / _FIELD_MM) + 2 for length in self.extent]
        self.soft = _unit(ndimage.gaussian_filter(self._noise(shape), 7))
        ridges = _unit(ndimage.gaussian_filter(self._noise(shape), (1.3, 4.5)))
        bits = _unit(ndimage.gaussian_filter(self._noise(shape), (0.8, 1.6)))
        # Strands are sparse: most places have none, a few have bright ones.
        self.strands = np.maximum(ridges - 0.6, 0) + 0.55 * np.maximum(bits - 1.2, 0) - 0.2
        layers = _unit(ndimage.gaussian_filter(self._noise(shape), (0.7, 14)))
        self.stripes = 1.3 * np.maximum(layers - 0.4, 0) + 0.3 * layers - 0.3

    def age(self, share: float) -> None:
        """Replace a share of the grains, as for a neighbouring plane: 0 keeps all, 1 draws all anew."""
        for number, old in enumerate(self.grains):
            self.grains[number] = np.complex64(np.sqrt(1 - share)) * old + np.complex64(np.sqrt(share)) * self._grains()

    def grains_at(self, look: int, points: Points) -> Complex64[np.ndarray, "*n"]:
        """The grains at points."""
        grains = self.grains[look]
        real, imaginary = (self._sampled(part, points.x, points.z, self.step) for part in (grains.real, grains.imag))
        return (real + 1j * imaginary).astype(np.complex64)

    def texture_db(self, maps: Maps, points: Points) -> Float32[np.ndarray, "*n"]:
        """By how much the brightness of the tissue differs from its mean."""
        total = maps.soft_db * self._sampled(self.soft, points.x, points.z, _FIELD_MM)
        total += maps.strands_db * self._sampled(self.strands, points.x, points.z, _FIELD_MM)
        if maps.stripes_db.any():
            total += maps.stripes_db * self._sampled(self.stripes, points.x, points.layer * 1.4, _FIELD_MM)
        return total

    def _grains(self) -> Complex64[np.ndarray, "h w"]:
        shape = [int(length / self.step) + 2 for length in self.extent]
        return (self._noise(shape) + 1j * self._noise(shape)).astype(np.complex64)

    def _noise(self, shape: list[int]) -> Float32[np.ndarray, "h w"]:
        return self.rng.standard_normal(shape, np.float32)

    def _sampled(self, field: np.ndarray, x: np.ndarray, z: np.ndarray, step: float) -> Float32[np.ndarray, "*n"]:
        at = np.stack([(z - self.top) / step, (x - self.left) / step])
        found: np.ndarray = ndimage.map_coordinates(field, at, order=1, mode="mirror", output=np.float32)
        return found


def tissue_points(
    view: View, polar: Float32[np.ndarray, "2 ..."], y: float, slide: tuple[float, float], still: float
) -> Points:
    """Where in the resting body ranges and angles lie.

    Args:
        view: the probe.
        polar: range (mm) and angle.
        y: of the plane (mm).
        slide: by how much breathing has moved the inner organs along x and z (mm).
        still: depth (mm) of the body wall, which does not move.
    """
    x, z = view.positions(polar)
    layer = skin_depth(polar, z)
    share = np.clip((layer - still) / 8, 0, 1).astype(np.float32)
    moved_z = np.float32(slide[1]) * share
    return Points(x - np.float32(slide[0]) * share, np.full_like(x, y), z - moved_z, layer - moved_z)


def echoes(
    rng: np.random.Generator,
    view: View,
    scene: Scene,
    tissue: Tissue,
    scanner: Scanner,
    points: Points,
    ranges: np.ndarray,
) -> tuple[Float32[np.ndarray, "r l"], Float32[np.ndarray, "r l"]]:
    """Envelope of the echoes (1: rms of the liver's speckle), and the loss (dB) by bone, gas and missing contact."""
    folded, beyond = scene.fold(points)
    maps = scene.maps(folded)
    step_cm = view.depth_mm / (len(ranges) - 1) / 10
    lines = points.x.shape[1]
    contact = _curve(scanner.contact_db, lines)[None, :] * np.clip(ranges[:, None] / 12, 0, 1)
    shadow = np.cumsum(np.where(maps.loss > 5, maps.loss, 0), axis=0) * step_cm
    loss = np.cumsum(maps.loss, axis=0) * step_cm + contact + scene.mirror_loss_db(beyond)
    # The edge of a shadow is as soft as the beam is wide.
    loss = ndimage.gaussian_filter1d(np.minimum(loss, 80), 1.5, axis=1)
    level = 10 ** ((maps.level_db + tissue.texture_db(maps, folded) - loss) / 20)
    rim = _broken(rng, maps.rim * 10 ** (-loss / 20))
    dirt = _dirty_shadow(rng, maps, view, len(ranges)) + _tail(rim, view)
    weaker = _noise_level(scanner, ranges)[:, None]
    total = np.zeros(points.x.shape, np.float32)
    for look in range(scanner.looks):
        grains = tissue.grains_at(look, folded)
        noise = _white(rng, points.x.shape)
        if tissue.power is None:
            blurred = _pulse(view, grains, ranges)
            tissue.power = ndimage.gaussian_filter1d(np.sqrt(np.mean(np.abs(blurred) ** 2, axis=1)), 15)[:, None]
        field = _pulse(view, grains * (level + dirt) / tissue.power + rim, ranges)
        total += np.abs(field + weaker * _unit_complex(ndimage.gaussian_filter(noise, (0.7, 0.5)))) ** 2
    return np.sqrt(total / scanner.looks), (shadow + contact).astype(np.float32)


def _pulse(
    view: View, values: Complex64[np.ndarray, "r l"], ranges: Float32[np.ndarray, " r"]
) -> Complex64[np.ndarray, "r l"]:
    """Blur by the pulse, whose size changes with depth; a constant keeps its value."""
    samples, lines = values.shape
    nodes = np.linspace(0, samples - 1, _PULSE_NODES)
    total = np.zeros_like(values)
    step = view.depth_mm / (samples - 1)
    for node in nodes:
        share = np.clip(1 - np.abs(np.arange(samples) - node) / (nodes[1] - nodes[0]), 0, 1).astype(np.float32)
        rows = np.flatnonzero(share)
        first, last = max(rows[0] - 12, 0), min(rows[-1] + 13, samples)
        at = node * step
        axial = (_AXIAL_MM[0] + _AXIAL_MM[1] * at) * _size(view) / step
        per_line = (view.radius_mm + at) * 2 * view.half_angle / (lines - 1)
        lateral = (_LATERAL_MM[0] + _LATERAL_MM[1] * at) * _size(view) / per_line
        blurred = ndimage.gaussian_filter(values[first:last], (axial, lateral), mode="nearest", truncate=3)
        total[first:last] += blurred * share[first:last, None]
    return total


def _size(view: View) -> float:
    """Shallow settings use higher frequencies."""
    return float(np.clip(view.depth_mm / 140, 0.4, 1.1))


def _broken(rng: np.random.Generator, rim: Float32[np.ndarray, "r l"]) -> Float32[np.ndarray, "r l"]:
    """Surfaces are no perfect mirrors: their echo comes and goes along them."""
    fine = _unit(ndimage.gaussian_filter(rng.standard_normal(rim.shape, np.float32), (6, 4)))
    coarse = _unit(ndimage.gaussian_filter(rng.standard_normal((rim.shape[0] // 8 + 1, rim.shape[1] // 8 + 1)), 1.8))
    coarse = ndimage.zoom(coarse, 8, order=1)[: rim.shape[0], : rim.shape[1]]
    return rim * np.exp(0.45 * fine + 0.6 * coarse - 0.35).astype(np.float32)


def _tail(rim: Float32[np.ndarray, "r l"], view: View) -> Float32[np.ndarray, "r l"]:
    """Amplitude of the haze that strong surfaces leave below them."""
    fade = float(np.exp(-view.depth_mm / (len(rim) - 1) / _TAIL_MM))
    tail = signal.lfilter([1 - fade], [1.0, -fade], np.maximum(rim - 3, 0), axis=0)
    return ndimage.gaussian_filter1d(_TAIL * tail, 2, axis=1).astype(np.float32)


def _dirty_shadow(rng: np.random.Generator, maps: Maps, view: View, samples: int) -> Float32[np.ndarray, "r l"]:
    """Amplitude of what echoes back and forth below gas: a haze in streaks that fades, with a few repeated lines."""
    if not maps.gas.any():
        return np.zeros(maps.rim.shape, np.float32)
    step = view.depth_mm / (samples - 1)
    entered = np.diff(maps.gas.astype(np.float32), axis=0, prepend=0) > 0
    strength = np.exp(0.5 * _unit(ndimage.gaussian_filter1d(rng.standard_normal(maps.gas.shape[1]), 3)))
    started = entered * strength[None, :]
    fade = float(np.exp(-step / _DIRTY_MM))
    haze = signal.lfilter([1.0], [1.0, -fade], started, axis=0)
    repeat = max(int(rng.uniform(7, 12) / step), 2)
    denominator = np.zeros(repeat + 1)
    denominator[0], denominator[repeat] = 1.0, -0.55
    rings = signal.lfilter([1.0], denominator, ndimage.gaussian_filter1d(started, 2, axis=0), axis=0)
    return (10 ** (_DIRTY_DB / 20) * (0.5 * np.minimum(haze, 1.5) + 1.5 * rings)).astype(np.float32)


def _noise_level(scanner: Scanner, ranges: np.ndarray) -> Float32[np.ndarray, " r"]:
    """The gain that makes up for the tissue lifts the noise by 3 dB with each cm."""
    return (10 ** ((scanner.noise_db - 0.3 * (ranges[-1] - ranges)) / 20)).astype(np.float32)


def display(scanner: Scanner, envelope: Float32[np.ndarray, "r l"]) -> Float32[np.ndarray, "r l"]:
    """Display values (0..1): gain, logarithm, and the range from black to white."""
    gained = 20 * np.log10(np.maximum(envelope, 1e-6)) + _curve(scanner.gain_db, len(envelope))[:, None]
    grey = np.clip(scanner.liver_grey + gained / scanner.range_db, 0, 1)
    return ndimage.gaussian_filter(grey, scanner.smooth).astype(np.float32)


def scan_converted(view: View, values: Float32[np.ndarray, "r l"]) -> Float32[np.ndarray, "h w"]:
    """Samples of beams as a picture, 0 outside the sector."""
    ranges, angles = view.polar
    samples, lines = values.shape
    shown = view.mask
    at = np.stack(
        [ranges[shown] / view.depth_mm * (samples - 1), (angles[shown] / view.half_angle + 1) / 2 * (lines - 1)]
    )
    picture = np.zeros(view.shape, np.float32)
    picture[shown] = ndimage.map_coordinates(values, at, order=1, mode="nearest")
    return picture


def tinted(scanner: Scanner, picture: Float32[np.ndarray, "h w"]) -> UInt8[np.ndarray, "h w 3"]:
    """Display values as the colours of the scanner's grey map."""
    return np.rint(picture[..., None] * np.asarray(scanner.tint) * 255).clip(0, 255).astype(np.uint8)


def _curve(values: tuple[float, ...], length: int) -> Float32[np.ndarray, " n"]:
    """A smooth curve through values at equal distances."""
    at = np.linspace(0, len(values) - 1, length)
    return ndimage.gaussian_filter1d(np.interp(at, range(len(values)), values), length / 30).astype(np.float32)


def _white(rng: np.random.Generator, shape: tuple[int, ...]) -> Complex64[np.ndarray, "r l"]:
    return (rng.standard_normal(shape, np.float32) + 1j * rng.standard_normal(shape, np.float32)).astype(np.complex64)


def _unit_complex(values: Complex64[np.ndarray, "r l"]) -> Complex64[np.ndarray, "r l"]:
    return values / np.float32(np.sqrt(np.mean(np.abs(values) ** 2)))


def _unit(values: np.ndarray) -> Float32[np.ndarray, "*n"]:
    """Mean 0 and standard deviation 1."""
    return ((values - values.mean()) / max(float(values.std()), 1e-6)).astype(np.float32)
