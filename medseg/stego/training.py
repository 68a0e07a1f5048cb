"""This file trains STEGO on stored patches: one loop, read from top to bottom.

Every random number and the data order are functions of (seed, step), so a checkpoint needs no random state: weights,
optimiser and step are enough to go on bit by bit as if nothing had happened. The clusterings that a training ends with
are fitted in `medseg.stego.methods`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from lightning_fabric import Fabric
from torch import Tensor

from medseg.errors import MedsegError
from medseg.files import hash_content
from medseg.patches.datasets import PairOrder, PatchDataset, pair_loader
from medseg.progress import track
from medseg.records import Records, load_checkpoint, save_checkpoint
from medseg.stego.augment import View, draw_view, show
from medseg.stego.checkpoints import begin_with, hash_initial, restore, weights, what_changes_a_step
from medseg.stego.clustering import PointSample, salience_threshold
from medseg.stego.head import Head, PyramidHead
from medseg.stego.health import CodeHealth, measure_codes
from medseg.stego.losses import Terms, feature_correspondence
from medseg.stego.methods import fit_methods, linear_method
from medseg.stego.model import ClusterModel, LinearModel
from medseg.stego.reports import COLUMNS, record_step
from medseg.stego.sampling import Draws, draw, generator_for
from medseg.stego.settings import StegoSettings
from medseg.stego.step import (
    Parts,
    Reduction,
    StepLosses,
    build_optimiser,
    build_parts,
    compute_losses,
    join_processes,
    sample_batch,
)

_log = logging.getLogger(__name__)
_SHIFT_BATCHES = 4
_WARM_UP = 0.25  # share of the steps before which codes may still look collapsed

ViewFeatures = Callable[[Float[Tensor, "b h w"]], Float[Tensor, "b d hf wf"]]


@dataclass(frozen=True)
class StegoRun:
    """What a training leaves behind.

    Attributes:
        methods: `stego`, `kmeans` (on the same features and points) and `untrained` (a head of random weights: the one
            at step 0 where training began with none).
        points: the pixels on which the clusters were fitted.
        assignments: for each method the cluster of each of these points.
        health: of the trained codes at these points.
        shifts: the three shifts that were used.
        steps: training steps.
        linear: the linear probe, where labels were there.
    """

    methods: Mapping[str, ClusterModel]
    points: PointSample
    assignments: Mapping[str, Int[np.ndarray, " n"]]
    health: CodeHealth
    shifts: Terms
    steps: int
    linear: LinearModel | None


def train(
    dataset: PatchDataset,
    pairs: Int[np.ndarray, "n k"],
    settings: StegoSettings,
    *,
    run_dir: Path,
    fabric: Fabric,
    seed: int,
    identity: str = "",
    view_features: ViewFeatures | None = None,
    initial: Mapping[str, Any] | None = None,
) -> StegoRun:
    """Train the head and the probes, then fit the clusterings; an interrupted training goes on where it was.

    Args:
        dataset: the training patches.
        pairs: neighbours of each patch, see `medseg.patches.pairs`.
        settings: the numbers of the run.
        run_dir: receives `metrics.csv`, `tensorboard/`, `checkpoints/last.pt`, with `keep_every` also
            `checkpoints/step_NNNNNN.pt`, and `methods/NAME/`.
        fabric: device, precision and processes, launched.
        seed: of weights, draws and data order.
        identity: names what the features are (backbone, preparation, patches); a checkpoint of another one is refused.
        view_features: a slice backbone on images; needed by the aug-alignment loss only.
        initial: weights to begin with, see `medseg.stego.published.initial_weights`; None: random ones.

    Raises:
        MedsegError: the checkpoint is of another run, `initial` does not fit, the batch cannot be shared by the
            processes, or the aug-alignment loss is wanted without a backbone that can see an augmented image.
    """
    if settings.aug_alignment_weight > 0 and view_features is None:
        raise MedsegError(
            f"stego.aug_alignment_weight must be 0 with a volume backbone, got {settings.aug_alignment_weight}; "
            "no augmented view of its features exists: set it to 0 or choose a slice backbone"
        )
    steps = settings.steps_for(len(dataset))
    parts = build_parts(dataset.feature_dim, settings, classes=dataset.classes, seed=seed)
    if initial is not None:
        begin_with(parts, initial)
    parts = Parts(
        fabric.setup_module(parts.head),
        fabric.setup_module(parts.probes),
        None if parts.decoder is None else fabric.setup_module(parts.decoder),
    )
    optimiser = build_optimiser(parts, settings)
    stepper: Any = fabric.setup_optimizers(optimiser)
    reduction = join_processes(fabric)

    path = run_dir / "checkpoints" / "last.pt"
    bound = [what_changes_a_step(settings), seed, identity, len(dataset), dataset.feature_dim]
    key = hash_content(bound if initial is None else [*bound, hash_initial(initial)])
    state = load_checkpoint(path, key)
    start = 0
    if state is None:
        threshold = salience_threshold(dataset, settings.salient_top, seed) if settings.salient_share > 0 else 0.0
        shifts = settings.term_shifts
        if settings.shifts == "auto":
            shifts = measure_shifts(dataset, pairs, settings, threshold=threshold, seed=seed)
        alarmed = False
    else:
        start, shifts, threshold, alarmed = state["step"], Terms(*state["shifts"]), state["threshold"], state["alarmed"]
        restore(parts, optimiser, state)
        _log.info("training goes on at step %d of %d", start, steps)
    _log.info("shifts (%s): random %.3f, knn %.3f, self %.3f", settings.shifts, *shifts)

    order = PairOrder(
        pairs,
        batch=settings.batch,
        seed=seed,
        start=start,
        stop=max(steps, start),
        rank=fabric.global_rank,
        processes=fabric.world_size,
    )
    if order.batch < settings.batch:
        _log.info("the batch is lowered from %d to the %d patches there are", settings.batch, order.batch)
    if order.batch == 1:
        _log.info("a batch of one patch has no negatives: the random term is left out")
    batches = iter(pair_loader(dataset, order, settings.workers))
    records = Records(run_dir, COLUMNS, start=start, active=fabric.global_rank == 0)
    for step in track(range(start, steps), "training", max(steps - start, 0)):
        batch = fabric.to_device(next(batches))
        draws = draw_for(settings, order.batch, dataset.feature_dim, seed, step).rows(order.rows, fabric.device)
        view = None
        if settings.aug_alignment_weight > 0 and view_features is not None:
            view = _view_rows(draw_view(order.batch, generator_for(seed, "augmentation", step)), order.rows, fabric)
            batch["augmented_features"] = view_features(show(view, batch["image"]))
        if step == settings.reset_probe_steps:
            reset_probes(parts, optimiser, settings, dataset.classes, seed)

        found = compute_losses(
            parts, batch, draws, settings, shifts, threshold=threshold, view=view, rows=order.rows, reduction=reduction
        )
        stepper.zero_grad()
        fabric.backward(found.total)
        stepper.step()

        if step % settings.log_every == 0 or step == steps - 1:
            scalars = {name: float(reduction.mean(value)) for name, value in found.scalars.items()}
            health = _batch_health(found)
            picture = step % settings.picture_every == 0 or step == steps - 1
            record_step(records, step, scalars, found, health, batch, picture=picture)
            if health.alarms and not alarmed and step >= _WARM_UP * steps:
                alarmed = bool(_warn(health, step))
        done = step + 1
        resumable, kept = done % settings.checkpoint_every == 0 or done == steps, settings.keeps(done, len(dataset))
        if resumable or kept:
            state = {"key": key, "step": done, "shifts": tuple(shifts)} | weights(parts)
            if fabric.global_rank == 0 and kept:
                save_checkpoint(path.with_name(f"step_{done:06d}.pt"), state)
            if fabric.global_rank == 0 and resumable:
                more = {"threshold": threshold, "alarmed": alarmed, "optimiser": optimiser.state_dict()}
                save_checkpoint(path, state | more)
            fabric.barrier()
    records.close()

    untrained: Any = build_parts(dataset.feature_dim, settings, classes=0, seed=seed).head
    head, probes = _bare(parts.head).cpu(), _bare(parts.probes).cpu()
    methods, points, assignments, health = fit_methods(dataset, settings, head, untrained, probes, seed)
    run = StegoRun(methods, points, assignments, health, shifts, steps, linear_method(head, probes))
    if run.health.alarms and not alarmed:
        _warn(run.health, steps)
    if fabric.global_rank == 0:
        for name, method in run.methods.items():
            method.save(run_dir / "methods" / name)
        if run.linear is not None:
            run.linear.save(run_dir / "methods" / run.linear.name)
    fabric.barrier()
    return run


def draw_for(
    settings: StegoSettings, batch: int, feature_dim: int, seed: int, step: int, stream: str = "step"
) -> Draws:
    """All random numbers of a step for the whole batch."""
    return draw(
        generator_for(seed, stream, step),
        batch=batch,
        feature_dim=feature_dim,
        samples=settings.feature_samples,
        negatives=settings.negatives,
        salient_share=settings.salient_share,
        dropout=settings.dropout,
        crf_samples=settings.crf_samples if settings.crf_weight > 0 else 0,
    )


def measure_shifts(
    dataset: PatchDataset, pairs: Int[np.ndarray, "n k"], settings: StegoSettings, *, threshold: float, seed: int
) -> Terms:
    """Shifts from the data: quantiles of the feature correspondences, sampled and centred as in training.

    Every process measures the same whole batches. Without negatives the random shift stays the preset's.
    """
    order = PairOrder(pairs, batch=settings.batch, seed=seed, start=0, stop=_SHIFT_BATCHES)
    found: dict[str, list[Tensor]] = {"random": [], "knn": [], "self": []}
    itself: Head | PyramidHead = Head(dataset.feature_dim, dataset.feature_dim, "none")
    if settings.projection == "pyramid":  # any one gives the teaching signal, the smallest the soonest
        itself = PyramidHead(dataset.feature_dim, 1, granularity=1)
    for step, batch in enumerate(pair_loader(dataset, order)):
        draws = draw_for(settings, order.batch, dataset.feature_dim, seed, step, "shifts")
        pairs_of_batch = sample_batch(itself, batch, draws, order.rows, settings, threshold, Reduction()).pairs
        anchor = pairs_of_batch.anchor[0]
        others = {
            "self": (pairs_of_batch.anchor,),
            "knn": (pairs_of_batch.positive,),
            "random": pairs_of_batch.negative,
        }
        for term, seconds in others.items():
            found[term] += [feature_correspondence(anchor, f, pointwise=settings.pointwise) for f, _ in seconds]
    quantiles = {"random": settings.random_quantile, "knn": settings.knn_quantile, "self": settings.self_quantile}
    preset = {"random": settings.random_shift, "knn": settings.knn_shift, "self": settings.self_shift}
    measured = {
        term: float(np.quantile(torch.cat(values).numpy(), quantiles[term])) if values else preset[term]
        for term, values in found.items()
    }
    return Terms(measured["random"], measured["knn"], measured["self"])


def reset_probes(
    parts: Parts, optimiser: torch.optim.Optimizer, settings: StegoSettings, classes: int, seed: int
) -> None:
    """Give the probes new weights and forget what the optimiser knew of them."""
    fresh = build_parts(_bare(parts.head).feature_dim, settings, classes=classes, seed=seed + 1).probes
    _bare(parts.probes).load_state_dict(fresh.state_dict())
    for parameter in parts.probes.parameters():
        optimiser.state.pop(parameter, None)


def _batch_health(found: StepLosses) -> CodeHealth:
    return measure_codes(_as_points(found.codes), _as_points(found.cosines))


def _as_points(maps: Tensor) -> Tensor:
    return maps.movedim(1, -1).flatten(0, -2).float()


def _warn(health: CodeHealth, step: int) -> str:
    message = health.describe()
    _log.warning("at step %d %s", step, message)
    return message


def _view_rows(view: View, rows: slice, fabric: Fabric) -> View:
    return View(*(values[rows].to(fabric.device) for values in view))


def _bare(module: Any) -> Any:
    """The module inside Fabric's wrapper."""
    return getattr(module, "_original_module", module)
