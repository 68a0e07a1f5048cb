"""This file trains a student: rounds of one loop, read from top to bottom. What is learnt is the course's matter.

Every random number is a function of (seed, round, step, item), so a checkpoint needs no random state: weights, their
running mean, optimiser and step are enough to go on bit by bit as if nothing had happened. The *running mean* (EMA) of
the weights is what is kept of a round. Where several processes train, each takes its rows of the batch; norms then see
these rows only, and those of the first process are kept. The words of `course.py` hold.
"""

from __future__ import annotations

import logging
import math
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from lightning_fabric import Fabric
from torch import Tensor

from medseg.errors import MedsegError
from medseg.features.student.course import Course, Snapshot
from medseg.features.student.loss import known_dice, student_loss
from medseg.features.student.precision import half_precision
from medseg.features.student.storage import CARD
from medseg.files import hash_content
from medseg.progress import track
from medseg.records import Records, load_checkpoint, save_checkpoint

COLUMNS = ("step", "round", "loss/total", "loss/bce", "loss/dice", "dice/known", "learning_rate")
"""Columns of `metrics.csv`; steps are counted over all rounds."""

_log = logging.getLogger(__name__)
_Weights = dict[str, Tensor]
_S = TypeVar("_S", bound=Snapshot)


def train_student(course: Course[_S], *, run_dir: Path, fabric: Fabric, seed: int, identity: str = "") -> _S:
    """Train a student; an interrupted training goes on where it was.

    Args:
        course: what is learnt.
        run_dir: receives `metrics.csv`, `tensorboard/`, `checkpoints/last.pt`, a student in `round_N/` for every round,
            and the last one's `student.safetensors` and `student.json`.
        fabric: device and processes, launched.
        seed: of weights and examples.
        identity: names whatever else the examples depend on; a checkpoint of another one is refused.

    Raises:
        MedsegError: the checkpoint is of another run, or the batch cannot be shared by the processes.
    """
    require_shares(course.settings.batch, fabric.world_size)
    key = hash_content([course.key(), seed, identity])
    path = run_dir / "checkpoints" / "last.pt"
    state = load_checkpoint(path, key)
    if state is None and fabric.global_rank == 0:
        _remove_rounds(run_dir)  # of another run, whose checkpoint somebody removed
    fabric.barrier()
    done = 0 if state is None else int(state["step"])
    if done:
        _log.info("training goes on at step %d of %d", done, sum(course.steps))

    records = Records(run_dir, COLUMNS, start=done, active=fabric.global_rank == 0)
    rounds = len(course.steps)
    for number in range(1, rounds + 1):
        snapshot, before = run_dir / f"round_{number}", run_dir / f"round_{number - 1}" if number > 1 else None
        labels = run_dir / "labels" / f"round_{number}" if number > 1 else None
        settled = run_dir / "labels" / f"round_{number + 1}" if number < rounds else None
        end = sum(course.steps[:number])
        if done > end or (done == end and _is_closed(snapshot, settled)):
            continue
        if done == end:  # trained, but not closed; what it began with need not be there any more
            before_training, labels = None, None
        else:
            before_training = before
        weights = _train_round(
            course,
            number,
            state,
            before=before_training,
            labels=labels,
            path=path,
            key=key,
            fabric=fabric,
            seed=seed,
            out=records,
        )
        (snapshot / CARD).unlink(missing_ok=True)  # it will say that the labels are complete
        fabric.barrier()
        found = course.close(number, weights, fabric, before=before, settled=settled)
        fabric.barrier()
        if fabric.global_rank == 0:
            found.save(snapshot, course.card(number))
        fabric.barrier()
        state = None
    records.close()
    student = course.load(run_dir / f"round_{rounds}")
    if fabric.global_rank == 0:
        student.save(run_dir)
        shutil.rmtree(run_dir / "labels", ignore_errors=True)
    fabric.barrier()
    return student


def require_shares(batch: int, processes: int) -> None:
    """Check that every process gets as many examples of a batch.

    Raises:
        MedsegError: the batch is no multiple of the processes.
    """
    if batch % processes:
        raise MedsegError(
            f"student.batch must be a multiple of the {processes} processes, got {batch}; change one of them"
        )


def _train_round(
    course: Course[_S],
    number: int,
    state: Mapping[str, Any] | None,
    *,
    before: Path | None,
    labels: Path | None,
    path: Path,
    key: str,
    fabric: Fabric,
    seed: int,
    out: Records,
) -> _Weights:
    """One round from its first step, or from the checkpoint's; returns the running mean of the weights."""
    settings, steps = course.settings, course.steps[number - 1]
    net, base = course.begin(number, seed, before=before, labels=labels)
    module: Any = fabric.setup_module(net)
    mean = {name: value.clone() for name, value in net.state_dict().items()}
    optimiser = torch.optim.AdamW(net.parameters(), weight_decay=settings.weight_decay)
    stepper: Any = fabric.setup_optimizers(optimiser)
    first = begin = sum(course.steps[: number - 1])
    if state is not None:
        first = int(state["step"])
    if state is not None and first > begin:
        net.load_state_dict(state["net"])
        optimiser.load_state_dict(state["optimiser"])
        mean = {name: value.to(fabric.device) for name, value in state["mean"].items()}
    end = begin + steps
    module.train()
    for step in track(range(first, end), f"training, round {number} of {len(course.steps)}"):
        rate = base * 0.5 * (1 + math.cos(math.pi * (step - begin) / steps))
        for group in optimiser.param_groups:
            group["lr"] = rate
        rows = range(fabric.global_rank, settings.batch, fabric.world_size)
        batch = course.draw([(seed, number, step - begin, item) for item in rows])
        inputs, target, weight = (part.to(fabric.device) for part in batch)
        with half_precision(fabric.device):
            logits = module(inputs)[0][:, 0].float()
        loss = student_loss(logits, target, weight, bce_weight=settings.bce_weight, smoothing=settings.dice_smoothing)
        stepper.zero_grad()
        fabric.backward(loss.total)
        fabric.clip_gradients(module, stepper, max_norm=settings.clip)
        stepper.step()
        _follow(mean, net.state_dict(), settings.ema, step - begin)

        if step % settings.log_every == 0 or step == end - 1:
            found = torch.stack([loss.total, loss.bce, loss.dice, known_dice(logits, target, weight)]).detach()
            if fabric.world_size > 1:
                found = fabric.all_reduce(found, reduce_op="mean")  # type: ignore[assignment]
            out.scalars(step, dict(zip(COLUMNS[1:], [number, *found.tolist(), rate], strict=True)))
        if step % settings.picture_every == 0 or step == end - 1:
            out.picture(step, "examples", course.picture(batch, logits.detach().sigmoid().cpu()))
        if (step + 1) % settings.checkpoint_every == 0 or step == end - 1:
            if fabric.global_rank == 0:
                kept = {"net": net.state_dict(), "mean": mean, "optimiser": optimiser.state_dict()}
                save_checkpoint(path, {"key": key, "step": step + 1, **kept})
            fabric.barrier()
    return mean


def _follow(mean: _Weights, weights: Mapping[str, Tensor], ema: float, step: int) -> None:
    """Move the running mean towards the weights, faster in the first steps, when it still remembers the start."""
    share = 1 - min(ema, (1 + step) / (10 + step))
    for name, value in weights.items():
        if value.is_floating_point():
            mean[name].lerp_(value, share)
        else:
            mean[name].copy_(value)


def _is_closed(snapshot: Path, settled: Path | None) -> bool:
    """Whether a round left all it has to: a student and, unless it was the last, labels for the next."""
    return (snapshot / CARD).is_file() and (settled is None or settled.is_dir())


def _remove_rounds(run_dir: Path) -> None:
    for folder in (*run_dir.glob("round_*"), run_dir / "labels"):
        shutil.rmtree(folder, ignore_errors=True)
