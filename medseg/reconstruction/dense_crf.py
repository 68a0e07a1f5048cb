"""This file sharpens the probabilities of a picture by its colours, with the CRF published for photographs.

The *fully connected CRF* ties every pixel to every other: near pixels (smoothness) and near pixels of like colour
(appearance) are drawn to the same class, by mean-field steps. A *slice job* is one slice to be labelled by several
methods; jobs run in other processes, so that the networks need not wait. Nothing here imports torch, because each of
those processes would have to load it.

References:
    Kraehenbuehl and Koltun, Efficient Inference in Fully Connected CRFs, NeurIPS 2011. Hamilton et al., STEGO,
    ICLR 2022, section 4 (the weights).
"""

from __future__ import annotations

import multiprocessing
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Integer, Shaped, UInt8
from scipy.special import log_softmax

from medseg.errors import MedsegError

LEAST_PROBABILITY = 1e-5
"""A class that the network rules out can still be drawn in by its neighbours: probabilities are raised to this."""
_JOBS_A_PROCESS = 2  # one at work, one waiting: more would only fill the memory


def dense_crf(
    picture: Shaped[np.ndarray, "h w 3"],
    log_probabilities: Float[np.ndarray, "k h w"],
    *,
    iterations: int = 10,
    smoothness_weight: float = 3,
    smoothness_sigma: float = 1,
    appearance_weight: float = 4,
    appearance_sigma_xy: float = 67,
    appearance_sigma_rgb: float = 3,
) -> Float[np.ndarray, "k h w"]:
    """Class probabilities after the CRF; the defaults are the published ones.

    Args:
        picture: the colours, uint8 or from 0 to 1.
        log_probabilities: of each class, up to a constant a pixel.
        iterations: mean-field steps.
        smoothness_weight: of the kernel of position.
        smoothness_sigma: its width in pixels.
        appearance_weight: of the kernel of position and colour.
        appearance_sigma_xy: its width in pixels.
        appearance_sigma_rgb: its width in grey values of 0 to 255.
    """
    from pydensecrf.densecrf import DenseCRF2D

    classes, height, width = log_probabilities.shape
    unary = -np.maximum(log_softmax(log_probabilities, axis=0), np.log(LEAST_PROBABILITY))
    field = DenseCRF2D(width, height, classes)
    field.setUnaryEnergy(np.ascontiguousarray(unary.reshape(classes, -1), dtype=np.float32))
    field.addPairwiseGaussian(sxy=smoothness_sigma, compat=smoothness_weight)
    # Blue first, as the reference program has it: the lattice that stands for the kernel is not the same in all axes.
    colours = np.ascontiguousarray(in_bytes(picture)[:, :, ::-1])
    field.addPairwiseBilateral(
        sxy=appearance_sigma_xy, srgb=appearance_sigma_rgb, rgbim=colours, compat=appearance_weight
    )
    return np.asarray(field.inference(iterations), dtype=np.float32).reshape(classes, height, width)


def in_bytes(picture: Shaped[np.ndarray, "h w 3"]) -> UInt8[np.ndarray, "h w 3"]:
    """Colours as bytes; those from 0 to 1 are rounded, where the reference program cuts."""
    if picture.dtype == np.uint8:
        return picture
    return np.rint(np.clip(picture, 0, 1) * 255).astype(np.uint8)


@dataclass(frozen=True)
class SliceJob:
    """One slice to be labelled.

    Attributes:
        case_id: whose slice.
        frame: its number.
        picture: its colours.
        log_probabilities: of each cluster, by method.
        crf: whether to sharpen them first.
    """

    case_id: str
    frame: int
    picture: UInt8[np.ndarray, "h w 3"]
    log_probabilities: Mapping[str, Float[np.ndarray, "_ h w"]]
    crf: bool

    def labels(self) -> dict[str, Integer[np.ndarray, "h w"]]:
        """The most probable cluster of each pixel, by method."""
        return {
            name: (dense_crf(self.picture, values) if self.crf else values).argmax(axis=0).astype(np.int16)
            for name, values in self.log_probabilities.items()
        }


@dataclass(frozen=True)
class LabelledSlice:
    """What a job gives: the most probable cluster of each pixel, by method."""

    case_id: str
    frame: int
    labels: Mapping[str, Integer[np.ndarray, "h w"]]


def label_slices(jobs: Iterable[SliceJob], *, processes: int) -> Iterator[LabelledSlice]:
    """Do the jobs in other processes while the next ones are being made, and yield the results in their order.

    Args:
        jobs: made one by one, and never more than two a process ahead.
        processes: how many; 0 does the jobs here.

    Raises:
        MedsegError: a process was killed.
    """
    if processes == 0:
        yield from map(_labelled, jobs)
        return
    # A forked copy of a process that runs torch's threads may hang; a spawned one begins afresh.
    context = multiprocessing.get_context("spawn")
    waiting: deque[Future[LabelledSlice]] = deque()
    with ProcessPoolExecutor(processes, mp_context=context) as pool:
        try:
            for job in jobs:
                waiting.append(pool.submit(_labelled, job))
                # What is ready goes on at once; with a full queue the oldest is waited for.
                while waiting and (waiting[0].done() or len(waiting) >= _JOBS_A_PROCESS * processes):
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        except BrokenProcessPool as error:
            raise MedsegError(
                f"the {processes} processes of the CRF must stay alive, got one that was killed, as happens when "
                "memory runs out; use fewer processes or smaller pictures"
            ) from error
        finally:
            for future in waiting:
                future.cancel()


def _labelled(job: SliceJob) -> LabelledSlice:
    return LabelledSlice(job.case_id, job.frame, job.labels())
