"""This file turns blended probabilities into a mask, step by step, in an order the config gives.

A *step* is a function `(state, volume, **numbers) -> state`. The *state* is the probability of one
class and its mask so far; the *volume* holds what may be known of the scan at prediction: grey
values, region, flux maps, spacing. No step can see a reference. The functions on arrays live in
`medseg.prepare`; this module only orders them.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float
from scipy import ndimage

from medseg.errors import MedsegError
from medseg.prepare import vesselness
from medseg.prepare.flux import RADII_MM, spacing_in_units
from medseg.reconstruction.dense_crf import dense_crf
from medseg.reconstruction.frames import smooth_frames
from medseg.reconstruction.pictures import FINDERS

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Volume:
    """What refinement may know of a scan, on its prepared grid.

    Attributes:
        image: grey values in tissue medians.
        region: where to look.
        salience: scaled flux `q`.
        tubularity: oriented flux over contrast.
        spacing: voxel size in mm.
        alarm: why the flux rule believes no vessel here, or None.
        signal: how far large vessels stand out from the noise, in robust sd; see `vesselness.FluxMaps`.
        radii_mm: of the vessels looked for.
    """

    image: Float[np.ndarray, "i j k"]
    region: Bool[np.ndarray, "i j k"]
    salience: Float[np.ndarray, "i j k"]
    tubularity: Float[np.ndarray, "i j k"]
    spacing: tuple[float, float, float]
    alarm: str | None = None
    signal: float = vesselness.NOISELESS
    radii_mm: tuple[float, ...] = RADII_MM

    @property
    def rule_spacing(self) -> tuple[float, float, float]:
        """Voxel size in the flux rule's own mm, which are longer where wider vessels are looked for."""
        return spacing_in_units(self.spacing, self.radii_mm)


@dataclass(frozen=True)
class State:
    """Probability of one class and its mask so far."""

    probability: Float[np.ndarray, "i j k"]
    mask: Bool[np.ndarray, "i j k"]


def refine(
    probability: Float[np.ndarray, "i j k"], volume: Volume, steps: Sequence[tuple[str, Mapping[str, float]]]
) -> Bool[np.ndarray, "i j k"]:
    """Threshold a class probability at one half and apply the named steps in their order.

    Args:
        probability: of one class, on the prepared grid.
        volume: the scan.
        steps: name and numbers of each step; see `STEPS`.

    Returns:
        The mask; empty where no voxel passes.
    """
    state = State(probability, probability > 0.5)
    for name, numbers in steps:
        state = STEPS[name](state, volume, **numbers)
    return state.mask


def require_steps(steps: Sequence[tuple[str, Mapping[str, float]]]) -> None:
    """Check names and numbers before long work starts; whether a step suits pictures or volumes, the config checks.

    Raises:
        MedsegError: a step or one of its numbers is unknown.
    """
    functions: dict[str, Callable[..., object]] = {**STEPS, **OF_PICTURES}
    for name, numbers in steps:
        if name not in functions:
            names = ", ".join(functions)
            raise MedsegError(f"reconstruct.refine must name steps among {names}, got {name}; mend the list")
        parameters = inspect.signature(functions[name]).parameters.values()
        known = [parameter.name for parameter in parameters if isinstance(parameter.default, int | float)]
        for number in numbers:
            if number not in known:
                takes = ", ".join(known) or "no numbers"
                raise MedsegError(f"refine step {name} must be given {takes}, got {number}; mend the list")


def _region(state: State, volume: Volume) -> State:
    return replace(state, mask=state.mask & volume.region)


def _flux_alarm(state: State, volume: Volume) -> State:
    if volume.alarm is None:
        return state
    _log.warning("%s; the mask is left empty", volume.alarm)
    return replace(state, mask=np.zeros_like(state.mask))


def _alarm(
    state: State, volume: Volume, least_signal: float = vesselness.NOISE_MADS, most_share: float = 0.15
) -> State:
    """Leave the mask empty where a network cannot be right.

    That is in pure noise; where the flux rule is silent for another reason than noise, such as values of another
    modality; and where the network calls too much a vessel. Unlike `flux_alarm` it lets a network try scans that are
    too noisy for the rule.
    """
    share = float(state.mask[volume.region].mean()) if volume.region.any() else 0.0
    if volume.signal <= least_signal:
        reason = f"{vesselness.NOT_FOUND}: nothing stands out from the noise"
    elif volume.alarm is not None and volume.signal > vesselness.ALARM_MADS:
        reason = volume.alarm
    elif share > most_share:
        reason = f"{vesselness.NOT_FOUND}: {100 * share:.2g} % of the region, too much for arteries"
    else:
        return state
    _log.warning("%s; the mask is left empty", reason)
    return replace(state, mask=np.zeros_like(state.mask))


def _gate(
    state: State, volume: Volume, least_probability: float = 0.2, alone_mm3: float = 5.0, min_mm3: float = 2.0
) -> State:
    """Let the flux rule decide what is a vessel, and the network how far it reaches.

    Components of the mask stay where they touch the rule's core; components of the core join them as a whole where the
    network finds them at least possible (in the median, because it may leave the middle of a wide vessel open). Where
    noise, and not the scan's own vessels, sets the rule's thresholds, the rule misses much, and components stay too
    that are larger than a network's specks and haze.
    """
    core = _core(volume)
    gated = vesselness.keep_touching(state.mask, core)
    if volume.signal < vesselness.NOISE_FLOOR_MADS:
        gated |= vesselness.drop_small_components(state.mask, volume.rule_spacing, alone_mm3)
    gated |= vesselness.keep_by_median(core, state.probability, least_probability)
    return replace(state, mask=vesselness.drop_small_components(gated, volume.rule_spacing, min_mm3))


def _core(volume: Volume) -> np.ndarray:
    """What the rule is sure of; nothing where it raised an alarm."""
    if volume.alarm is not None:
        return np.zeros(volume.region.shape, bool)
    core = vesselness.flux_core(volume.salience, volume.tubularity, volume.spacing, radii_mm=volume.radii_mm)
    return core & volume.region


def _hysteresis(state: State, volume: Volume, low: float = 0.3, high: float = 0.6) -> State:
    return replace(state, mask=vesselness.hysteresis(state.probability, low, high))


def _half_maximum_edge(state: State, volume: Volume, fraction: float = 0.5) -> State:
    edge = vesselness.half_maximum_edge(volume.image, state.mask, volume.rule_spacing, fraction=fraction)
    return replace(state, mask=edge)


def _tubes(
    state: State,
    volume: Volume,
    sure_salience: float = vesselness.SURE_SALIENCE,
    min_tubularity: float = vesselness.CORE_TUBULARITY,
) -> State:
    """Drop components that are neither very salient nor shaped like tubes: fat strands, sinus walls."""
    kept = vesselness.drop_unlike_tubes(
        state.mask, volume.salience, volume.tubularity, sure_salience=sure_salience, min_tubularity=min_tubularity
    )
    return replace(state, mask=kept)


def _weak_sheets(state: State, volume: Volume) -> State:
    """Drop faint parts that are spread out rather than shaped like tubes, also where they hang on a vessel."""
    kept = vesselness.drop_weak_sheets(state.mask, volume.salience, volume.tubularity, volume.rule_spacing)
    return replace(state, mask=kept)


def _radius_edge(state: State, volume: Volume, q_min: float = vesselness.EDGE_SALIENCE) -> State:
    """Move the border to the wall. Where noise sets the scale of q, walls have less of it, and the least q follows."""
    share = min(volume.signal / vesselness.NOISE_FLOOR_MADS, 1.0)
    least = max(q_min * share, min(q_min, vesselness.NOISY_EDGE_SALIENCE))
    edge = vesselness.radius_edge(volume.image, state.mask, volume.salience, volume.rule_spacing, q_min=least)
    return replace(state, mask=edge)


def _components(state: State, volume: Volume, min_mm3: float = 2.0) -> State:
    return replace(state, mask=vesselness.drop_small_components(state.mask, volume.rule_spacing, min_mm3))


def _crf_2d(
    state: State,
    volume: Volume,
    sigma_voxels: float = 3.0,
    sigma_grey: float = 0.2,
    weight: float = 1.0,
    iterations: float = 5,
) -> State:
    probability = np.array(state.probability, dtype=np.float32)
    for k in np.flatnonzero(np.any(probability > 0.05, axis=(0, 1))):
        probability[:, :, k] = _crf(
            probability[:, :, k], volume.image[:, :, k], sigma_voxels, sigma_grey, weight, int(iterations)
        )
    return State(probability, probability > 0.5)


def _crf_3d(
    state: State,
    volume: Volume,
    sigma_voxels: float = 3.0,
    sigma_grey: float = 0.2,
    weight: float = 1.0,
    iterations: float = 5,
) -> State:
    """Dense CRF over slabs of slices with a halo, inside the box that holds any candidate."""
    probability = np.array(state.probability, dtype=np.float32)
    boxes = ndimage.find_objects((state.probability > 0.05).astype(np.uint8))
    if not boxes:
        return State(probability, probability > 0.5)
    rows, columns, slices = boxes[0]
    halo = round(2 * sigma_voxels)
    for start in range(slices.start, slices.stop, _SLAB_SLICES):
        stop = min(start + _SLAB_SLICES, slices.stop)
        low, high = max(start - halo, 0), min(stop + halo, probability.shape[2])
        box = (rows, columns, slice(low, high))
        slab = _crf(state.probability[box], volume.image[box], sigma_voxels, sigma_grey, weight, int(iterations))
        probability[rows, columns, start:stop] = slab[:, :, start - low : stop - low]
    return State(probability, probability > 0.5)


_SLAB_SLICES = 32  # the CRF's lattice needs about 300 bytes a voxel


def _crf(
    probability: np.ndarray, image: np.ndarray, sigma_voxels: float, sigma_grey: float, weight: float, iterations: int
) -> np.ndarray:
    """Fully connected CRF with one bilateral and one Gaussian kernel (Kraehenbuehl and Koltun, NeurIPS 2011)."""
    from pydensecrf.densecrf import DenseCRF
    from pydensecrf.utils import create_pairwise_bilateral, create_pairwise_gaussian, unary_from_softmax

    foreground = np.clip(probability, 1e-5, 1 - 1e-5)
    field = DenseCRF(probability.size, 2)
    field.setUnaryEnergy(np.ascontiguousarray(unary_from_softmax(np.stack([1 - foreground, foreground]))))
    sigmas = (sigma_voxels,) * probability.ndim
    smooth = create_pairwise_gaussian(sdims=(1.0,) * probability.ndim, shape=probability.shape)
    alike = create_pairwise_bilateral(sdims=sigmas, schan=(sigma_grey,), img=np.asarray(image)[..., None], chdim=-1)
    field.addPairwiseEnergy(smooth, compat=weight)
    field.addPairwiseEnergy(alike, compat=weight)
    return np.asarray(field.inference(iterations))[1].reshape(probability.shape).astype(np.float32)


OF_PICTURES: Mapping[str, Callable[..., object]] = {"frames": smooth_frames, "crf": dense_crf, **FINDERS}
"""Steps of pictures and ultrasound, which `reconstruction/pictures.py` and the workflow run in this order."""
STEPS: Mapping[str, Callable[..., State]] = {
    "region": _region,
    "flux_alarm": _flux_alarm,
    "alarm": _alarm,
    "gate": _gate,
    "crf_2d": _crf_2d,
    "crf_3d": _crf_3d,
    "hysteresis": _hysteresis,
    "tubes": _tubes,
    "weak_sheets": _weak_sheets,
    "half_maximum_edge": _half_maximum_edge,
    "radius_edge": _radius_edge,
    "components": _components,
}
