"""This file trains the student on stored volumes: rounds of one loop, read from top to bottom.

Every random number is a function of (seed, round, step, item), so a checkpoint needs no random state: weights, their
running mean, optimiser and step are enough to go on bit by bit as if nothing had happened. The *running mean* (EMA) of
the weights is what is kept of a round. Where several processes train, each takes its rows of the batch; norms then see
these rows only, and those of the first process are kept.
"""

from __future__ import annotations

import dataclasses
import logging
import math
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from lightning_fabric import Fabric
from torch import Tensor

from medseg.errors import MedsegError
from medseg.features.student.loss import known_dice, student_loss
from medseg.features.student.network import StudentNet, first_network, half_precision
from medseg.features.student.rounds import close_round, settled_volumes
from medseg.features.student.student import Student
from medseg.features.student.volumes import StudentVolume
from medseg.features.student.windows import Windows, draw_windows
from medseg.features.teachers.vessels import NO, YES
from medseg.files import hash_content
from medseg.progress import track
from medseg.records import Records, load_checkpoint, save_checkpoint

COLUMNS = ("step", "round", "loss/total", "loss/bce", "loss/dice", "dice/known", "learning_rate")
"""Columns of `metrics.csv`; steps are counted over all rounds."""

_NOT_IN_KEY = {"rounds", "checkpoint_every", "log_every", "picture_every"}
_log = logging.getLogger(__name__)
_Weights = dict[str, Tensor]


@dataclass(frozen=True)
class StudentSettings:
    """The numbers of a student's training.

    Attributes:
        widths: channels of the network's levels.
        rounds: students, each on the labels that the one before settled.
        steps: of a round.
        batch: windows a step.
        window: side of a window in voxels.
        learning_rate: at the start of the first round; it falls to 0 along a cosine in every round.
        later_learning_rate: the same for later rounds, and for the first from trained weights.
        weight_decay: of AdamW.
        clip: largest norm of the gradient.
        ema: share of the running mean that a step keeps.
        painted: share of windows into which vessels are painted.
        centred: share of windows around a positive.
        bce_weight: of the cross-entropy beside Dice.
        dice_smoothing: in voxels, see `student_loss`.
        checkpoint_every, log_every, picture_every: in steps; they change nothing.
    """

    widths: tuple[int, ...] = (12, 24, 48)
    rounds: int = 2
    steps: int = 600
    batch: int = 2
    window: int = 64
    learning_rate: float = 3e-3
    later_learning_rate: float = 1.5e-3
    weight_decay: float = 1e-4
    clip: float = 2.0
    ema: float = 0.99
    painted: float = 0.75
    centred: float = 0.5
    bce_weight: float = 3.0
    dice_smoothing: float = 20.0
    checkpoint_every: int = 50
    log_every: int = 10
    picture_every: int = 200

    def __post_init__(self) -> None:
        multiple = 2 ** (len(self.widths) - 1)
        if self.window % multiple:
            raise MedsegError(
                f"student.window must be a multiple of {multiple}, as {len(self.widths)} levels need, "
                f"got {self.window}; choose {max(self.window // multiple, 1) * multiple}"
            )


def train_student(
    volumes: Sequence[StudentVolume],
    settings: StudentSettings,
    *,
    run_dir: Path,
    fabric: Fabric,
    seed: int,
    start: Student | None = None,
    identity: str = "",
) -> Student:
    """Train a student; an interrupted training goes on where it was.

    Args:
        volumes: the training scans with the teacher's or exact labels.
        settings: the numbers of the run.
        run_dir: receives `metrics.csv`, `tensorboard/`, `checkpoints/last.pt`, a student in `round_N/` for every round,
            and the last one's `student.safetensors` and `student.json`.
        fabric: device and processes, launched.
        seed: of weights and windows.
        start: a trained student to begin with.
        identity: names whatever else the volumes depend on; a checkpoint of another one is refused.

    Raises:
        MedsegError: the checkpoint is of another run, there is no volume, the batch cannot be shared by the processes,
            or `start` has other widths.
    """
    _require_usable(volumes, settings, fabric.world_size, start)
    origin = None if start is None else start.fingerprint
    key = hash_content([_what_changes_a_step(settings), seed, identity, [v.key for v in volumes], origin])
    path = run_dir / "checkpoints" / "last.pt"
    state = load_checkpoint(path, key)
    if state is None and fabric.global_rank == 0:
        _remove_rounds(run_dir)  # of another run, whose checkpoint somebody removed
    fabric.barrier()
    done = 0 if state is None else int(state["step"])
    if done:
        _log.info("training goes on at step %d of %d", done, settings.rounds * settings.steps)

    module: Any = fabric.setup_module(first_network(settings.widths, seed))
    records = Records(run_dir, COLUMNS, start=done, active=fabric.global_rank == 0)
    for number in range(1, settings.rounds + 1):
        snapshot, settled = run_dir / f"round_{number}", run_dir / "labels" / f"round_{number + 1}"
        last, end = number == settings.rounds, number * settings.steps
        if done > end or (done == end and _is_closed(snapshot, None if last else settled)):
            continue
        before, labelled = start, volumes
        if number > 1 and done < end:
            before = Student.load(run_dir / f"round_{number - 1}")
            labelled = settled_volumes(volumes, run_dir / "labels" / f"round_{number}")
        weights = _train_round(
            module, labelled, settings, number, before, state, path=path, key=key, fabric=fabric, seed=seed, out=records
        )
        (snapshot / "student.json").unlink(missing_ok=True)  # it will say that the labels are complete
        fabric.barrier()
        found = close_round(weights, settings.widths, volumes, fabric, settled=None if last else settled)
        fabric.barrier()
        if fabric.global_rank == 0:
            found.save(snapshot, _card(volumes, settings, number, origin))
        fabric.barrier()
        state = None
    records.close()
    student = Student.load(run_dir / f"round_{settings.rounds}")
    if fabric.global_rank == 0:
        student.save(run_dir)
        shutil.rmtree(run_dir / "labels", ignore_errors=True)
    fabric.barrier()
    return student


def _train_round(
    module: Any,
    volumes: Sequence[StudentVolume],
    settings: StudentSettings,
    number: int,
    before: Student | None,
    state: Mapping[str, Any] | None,
    *,
    path: Path,
    key: str,
    fabric: Fabric,
    seed: int,
    out: Records,
) -> _Weights:
    """One round from its first step, or from the checkpoint's; returns the running mean of the weights."""
    net: StudentNet = getattr(module, "_original_module", module)
    net.load_state_dict((first_network(settings.widths, seed) if before is None else before.net).state_dict())
    mean = {name: value.clone() for name, value in net.state_dict().items()}
    optimiser = torch.optim.AdamW(net.parameters(), weight_decay=settings.weight_decay)
    stepper: Any = fabric.setup_optimizers(optimiser)
    first = begin = (number - 1) * settings.steps
    if state is not None:
        first = int(state["step"])
    if state is not None and first > begin:
        net.load_state_dict(state["net"])
        optimiser.load_state_dict(state["optimiser"])
        mean = {name: value.to(fabric.device) for name, value in state["mean"].items()}
    base = settings.learning_rate if before is None else settings.later_learning_rate
    end = begin + settings.steps
    module.train()
    for step in track(range(first, end), f"training, round {number} of {settings.rounds}"):
        rate = base * 0.5 * (1 + math.cos(math.pi * (step - begin) / settings.steps))
        for group in optimiser.param_groups:
            group["lr"] = rate
        rows = range(fabric.global_rank, settings.batch, fabric.world_size)
        windows = draw_windows(
            volumes,
            [(seed, number, step - begin, item) for item in rows],
            window=settings.window,
            centred=settings.centred,
            painted=settings.painted,
        )
        inputs, labels, weight = (part.to(fabric.device) for part in windows)
        with half_precision(fabric.device):
            logits = module(inputs)[0][:, 0].float()
        loss = student_loss(logits, labels, weight, bce_weight=settings.bce_weight, smoothing=settings.dice_smoothing)
        stepper.zero_grad()
        fabric.backward(loss.total)
        fabric.clip_gradients(module, stepper, max_norm=settings.clip)
        stepper.step()
        _follow(mean, net.state_dict(), settings.ema, step - begin)

        if step % settings.log_every == 0 or step == end - 1:
            found = torch.stack([loss.total, loss.bce, loss.dice, known_dice(logits, labels, weight)]).detach()
            if fabric.world_size > 1:
                found = fabric.all_reduce(found, reduce_op="mean")  # type: ignore[assignment]
            out.scalars(step, dict(zip(COLUMNS[1:], [number, *found.tolist(), rate], strict=True)))
        if step % settings.picture_every == 0 or step == end - 1:
            out.picture(step, "windows", draw_picture(windows, logits.detach().sigmoid().cpu()))
        if (step + 1) % settings.checkpoint_every == 0 or step == end - 1:
            if fabric.global_rank == 0:
                kept = {"net": net.state_dict(), "mean": mean, "optimiser": optimiser.state_dict()}
                save_checkpoint(path, {"key": key, "step": step + 1, **kept})
            fabric.barrier()
    return mean


def draw_picture(windows: Windows, probability: Float[Tensor, "b i j k"], most: int = 4) -> Float[Tensor, "3 h w"]:
    """Up to four windows, one row each: the slice with most vessel, its labels (unknown in blue), the answer."""
    rows = []
    for inputs, labels, answer in list(zip(windows.inputs, windows.labels, probability, strict=True))[:most]:
        slice_ = int((labels == YES).sum((0, 1)).argmax())
        image = inputs[0, :, :, slice_]
        grey = (image - image.min()) / (image.max() - image.min()).clamp(min=1e-6)
        said = torch.stack([labels == YES, labels == YES, labels != NO]).float()[..., slice_]
        rows.append(torch.cat([grey.expand(3, -1, -1), said, answer[:, :, slice_].expand(3, -1, -1)], dim=2))
    return torch.cat(rows, dim=1)


def _follow(mean: _Weights, weights: Mapping[str, Tensor], ema: float, step: int) -> None:
    """Move the running mean towards the weights, faster in the first steps, when it still remembers the start."""
    share = 1 - min(ema, (1 + step) / (10 + step))
    for name, value in weights.items():
        if value.is_floating_point():
            mean[name].lerp_(value, share)
        else:
            mean[name].copy_(value)


def _what_changes_a_step(settings: StudentSettings) -> dict[str, Any]:
    """More rounds, or other reports, may go on from a checkpoint."""
    return {name: value for name, value in dataclasses.asdict(settings).items() if name not in _NOT_IN_KEY}


def _is_closed(snapshot: Path, settled: Path | None) -> bool:
    """Whether a round left all it has to: a student and, unless it was the last, labels for the next."""
    return (snapshot / "student.json").is_file() and (settled is None or settled.is_dir())


def _remove_rounds(run_dir: Path) -> None:
    for folder in (*run_dir.glob("round_*"), run_dir / "labels"):
        shutil.rmtree(folder, ignore_errors=True)


def _card(
    volumes: Sequence[StudentVolume], settings: StudentSettings, rounds: int, origin: str | None
) -> dict[str, Any]:
    """How a snapshot was trained, in plain values."""
    numbers = {**dataclasses.asdict(settings), "rounds": rounds}
    return {"volumes": len(volumes), "start": origin, "settings": numbers}


def _require_usable(
    volumes: Sequence[StudentVolume], settings: StudentSettings, processes: int, start: Student | None
) -> None:
    if not volumes:
        raise MedsegError("the student must have a scan to learn from, got none; add scans")
    if settings.batch % processes:
        raise MedsegError(
            f"student.batch must be a multiple of the {processes} processes, got {settings.batch}; change one of them"
        )
    if start is not None and start.net.widths != tuple(settings.widths):
        raise MedsegError(
            f"student.widths must be those of the student it starts from, {list(start.net.widths)}, "
            f"got {list(settings.widths)}; change them, or start from nothing"
        )
