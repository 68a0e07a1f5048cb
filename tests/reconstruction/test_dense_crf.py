"""This file tests the CRF against the reference program, and its jobs in other processes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn.functional import interpolate

from medseg.errors import MedsegError
from medseg.reconstruction.dense_crf import SliceJob, dense_crf, in_bytes, label_slices

GOLDEN = np.load(Path(__file__).parent.parent / "golden" / "dense_crf.npz")
SIZES, CLASSES = ("64x64", "96x80"), (2, 3, 6)


def upsampled(logits: np.ndarray, size: tuple[int, ...]) -> np.ndarray:
    return interpolate(torch.from_numpy(logits)[None], size=size, mode="bilinear", align_corners=False)[0].numpy()


@pytest.mark.parametrize(("size", "classes"), [*product(SIZES, CLASSES)])
def test_probabilities_equal_the_reference_program(size: str, classes: int) -> None:
    case = f"{size}/classes{classes}"
    picture = GOLDEN[f"{size}/in_rgb_uint8_seen"]
    found = dense_crf(picture, upsampled(GOLDEN[f"{case}/in_logits"], picture.shape[:2]))
    wanted = GOLDEN[f"{case}/out_Q"].astype(np.float32)
    assert np.abs(found - wanted).max() <= 5e-4  # float16 there
    assert (found.argmax(0) == GOLDEN[f"{case}/out_argmax"]).mean() >= 0.999


@pytest.mark.parametrize("size", SIZES)
def test_without_the_crf_labels_differ_from_the_reference_program(size: str) -> None:
    picture = GOLDEN[f"{size}/in_rgb_uint8_seen"]
    logits = upsampled(GOLDEN[f"{size}/classes6/in_logits"], picture.shape[:2])
    assert (logits.argmax(0) == GOLDEN[f"{size}/classes6/out_argmax"]).mean() < 0.98


def test_one_step_equals_the_paper_in_a_slow_loop() -> None:
    """Mean field with exact kernels, symmetrically normalised, on a picture small enough for a full matrix."""
    random = np.random.default_rng(0)
    picture = random.integers(0, 256, (6, 5, 3)).astype(np.uint8)
    logits = random.normal(size=(3, 6, 5)).astype(np.float32)
    place = np.stack(np.indices((6, 5)), -1).reshape(-1, 2).astype(float)
    colour = picture.reshape(-1, 3).astype(float)
    apart = ((place[:, None] - place) ** 2).sum(-1)
    unlike = ((colour[:, None] - colour) ** 2).sum(-1)

    def normed(kernel: np.ndarray) -> np.ndarray:
        root = 1 / np.sqrt(kernel.sum(1))
        return root[:, None] * kernel * root

    kernel = 3 * normed(np.exp(-apart / 2)) + 4 * normed(np.exp(-apart / (2 * 67**2) - unlike / (2 * 3**2)))
    log_q = torch.from_numpy(logits.reshape(3, -1)).log_softmax(0).numpy()
    wanted = torch.from_numpy(log_q + np.exp(log_q) @ kernel).softmax(0).numpy().reshape(3, 6, 5)
    assert np.abs(dense_crf(picture, logits, iterations=1) - wanted).mean() <= 0.02  # the lattice is no exact kernel


def edge() -> tuple[np.ndarray, np.ndarray]:
    """A picture with a sharp edge, and probabilities whose edge lies three pixels beside it."""
    picture = np.zeros((32, 32, 3), np.float32)
    picture[:, 16:] = 0.9
    right = np.full((32, 32), 0.35, np.float32)
    right[:, 19:] = 0.65
    return picture, right


def test_an_edge_moves_to_where_colours_change() -> None:
    picture, right = edge()
    found = dense_crf(picture, np.log(np.stack([1 - right, right])))
    assert found.sum(0) == pytest.approx(np.ones((32, 32)), abs=1e-5)
    assert np.array_equal(found[1] > 0.5, np.indices((32, 32))[1] >= 16)


def test_sigmas_are_in_pixels_and_grey_values() -> None:
    picture, right = edge()
    probabilities = np.log(np.stack([1 - right, right]))
    blind = dense_crf(picture, probabilities, appearance_sigma_rgb=1e4, appearance_sigma_xy=1)
    assert np.array_equal(blind[1] > 0.5, right > 0.5)  # colours that all look alike move no edge


def test_colours_are_rounded() -> None:
    assert in_bytes(np.full((1, 1, 3), 0.999 / 255, np.float32)).tolist() == [[[1, 1, 1]]]
    assert in_bytes(np.full((1, 1, 3), 7, np.uint8)).tolist() == [[[7, 7, 7]]]


def jobs(count: int, made: list[int] | None = None) -> Iterator[SliceJob]:
    picture, right = edge()
    for number in range(count):
        if made is not None:
            made.append(number)
        probabilities = {"even": np.log(np.stack([1 - right, right])), "odd": np.log(np.stack([right, 1 - right]))}
        yield SliceJob(f"case {number}", number, in_bytes(picture), probabilities, crf=number % 2 == 0)


def test_other_processes_give_the_same_labels_in_the_same_order() -> None:
    here = list(label_slices(jobs(5), processes=0))
    there = list(label_slices(jobs(5), processes=2))
    assert [(found.case_id, found.frame) for found in there] == [(f"case {n}", n) for n in range(5)]
    for first, second in zip(here, there, strict=True):
        for name, labels in first.labels.items():
            assert np.array_equal(labels, second.labels[name])
    assert not np.array_equal(here[0].labels["even"], here[1].labels["even"])  # with the CRF, and without


def test_jobs_are_not_made_far_ahead() -> None:
    made: list[int] = []
    results = label_slices(jobs(50, made), processes=1)
    next(results)
    assert len(made) <= 3
    results.close()


def test_a_process_that_is_killed_is_said() -> None:
    with pytest.raises(MedsegError, match="must stay alive, got one that was killed"):
        list(label_slices([Deadly()], processes=1))


class Deadly(SliceJob):
    """A job in which its process dies."""

    def __init__(self) -> None:
        super().__init__("case", 0, np.zeros((4, 5, 3), np.uint8), {}, crf=False)

    def labels(self) -> dict[str, np.ndarray]:
        os._exit(9)
