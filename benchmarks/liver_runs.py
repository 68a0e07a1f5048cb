"""This file takes the liver benchmark's rows from the application: a run is trained, and its masks are read and scored.

Runs are trained on the *learn* pictures without any label. Names of clusters by training labels, and the oracle, come
afterwards from masks in which every cluster is a class of its own (`naming.source=clusters`: cluster n has the value
n + 1): those of the learn pictures meet the training labels, those of the report pictures, marked, the scored ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from liver_cases import Masks, Picture, Plan
from liver_scores import cluster_table, value_of_cluster

from medseg.errors import MedsegError
from medseg.workflows.manifests import read_manifest
from medseg.workflows.reconstruction import reconstruct_run
from medseg.workflows.results import read_mask
from medseg.workflows.training import train_run

NETWORK = "[efficientnet_lite0@2,efficientnet_lite0@3,efficientnet_lite0@4]"
"""Strides 8, 16 and 32 of the network with ImageNet weights."""
CLUSTERINGS = ("kmeans", "stego")
TRIAL = ("stego.steps=6", "stego.fit_points=2000")
TRIAL_STUDENT = ("student.rounds=1", "student.steps=6", "student.product_steps=6")
"""Overrides of a trial."""


@dataclass(frozen=True)
class Run:
    """A run of the application.

    Attributes:
        name: of its folder.
        title: what its features are called in the table.
        config: shipped name.
        overrides: of the config.
        direct: methods that draw a mask without clusters.
        clusterings: methods whose clusters need names.
        teaches: whether it trains a student.
        cluster_steps: overrides of the masks in which clusters have no names; steps of the liver want a liver.
    """

    name: str
    title: str
    config: str
    overrides: tuple[str, ...] = ()
    direct: tuple[str, ...] = ()
    clusterings: tuple[str, ...] = CLUSTERINGS
    teaches: bool = False
    cluster_steps: tuple[str, ...] = ("reconstruct.refine=[]",)


RAW = ("naming.rules=liver_ultrasound_cues", "reconstruct.method=stego", "patches.magnification=2")
"""Overrides for features that are not the student's: twice as large, as their strides need."""
RUNS = (
    Run("bank", "image bank", "liver_ultrasound_bare", (*RAW, "features.backbone=image_bank")),
    Run("network", "network features", "liver_ultrasound", (*RAW, f"features.backbone={NETWORK}")),
    Run("student", "student's features", "liver_ultrasound", direct=("teacher", "student"), teaches=True),
    Run("bare", "", "liver_ultrasound_bare", direct=("student",), clusterings=(), teaches=True),
)
"""In the order of the table; rows of clusterings carry the name of their features."""
PICTURE_RUNS = (
    Run("pictures_bank", "image bank, no sector", "pictures_bank", cluster_steps=()),
    Run("pictures", "network features, no sector", "pictures", cluster_steps=()),
)
"""The configs for any pictures, which know of no sector: what liver ultrasound gets from the application otherwise."""


def by_rule(plan: Plan, run: Run, seed: int, method: str) -> Masks:
    """Masks as the application writes them, of one method."""
    folder = trained(plan, run, seed)
    out = folder.parent / "masks"
    reconstruct_run(folder, plan.folder("report"), out, compare=True, brief=True)
    return {picture.name: _written(out, picture, method) for picture in plan.report}


def by_labels(plan: Plan, run: Run, seed: int, method: str, *, oracle: bool) -> Masks:
    """Masks of a clustering whose clusters are named by training labels, or by those that are scored."""
    folder = trained(plan, run, seed)
    report = _clusters(plan.report, plan.folder("report"), folder, run, method)
    meet = report if oracle else _clusters(plan.learn, plan.folder("learn"), folder, run, method)
    pictures = plan.report if oracle else plan.learn
    count = max(int(clusters.max()) for clusters in [*report.values(), *meet.values()])
    table = sum(cluster_table(meet[picture.name], picture.label, count) for picture in pictures)
    values = value_of_cluster(np.asarray(table))
    return {name: values[clusters] for name, clusters in report.items()}


def trained(plan: Plan, run: Run, seed: int) -> Path:
    """The run's folder, trained to the end; one that was interrupted goes on."""
    folder = plan.work / "runs" / run.name / str(seed) / "run"
    trial = (*TRIAL, *(TRIAL_STUDENT if run.teaches else ())) if plan.trial else ()
    store = plan.work / "store" / run.name  # prepared frames are the same for all seeds
    overrides = [*run.overrides, f"run.seed={seed}", f"features.store={store}", *trial]
    train_run(run.config, plan.folder("learn"), folder, overrides=overrides, labels=False)
    return folder


def _clusters(
    pictures: Sequence[Picture], images: Path, folder: Path, run: Run, method: str
) -> dict[str, UInt8[np.ndarray, "h w"]]:
    """Cluster of each pixel, from 1; 0 outside the region."""
    out = folder.parent / f"clusters_{images.name}"
    asked = ("naming.source=clusters", "reconstruct.method=stego", *run.cluster_steps)
    reconstruct_run(folder, images, out, compare=True, overrides=asked, brief=True)
    return {picture.name: _written(out, picture, method) for picture in pictures}


def _written(out: Path, picture: Picture, method: str) -> UInt8[np.ndarray, "h w"]:
    """A method's mask in a result folder; the run's own method goes by another name.

    Raises:
        MedsegError: it is not there, or has another size.
    """
    path = out / f"{picture.name}_manifest.json"
    if not path.is_file() and picture.frame.sector is None:  # the application said so, and left it out
        return np.zeros(picture.shape, np.uint8)
    manifest = read_manifest(path)
    if method not in (known := [manifest["method"], *manifest["compared"]]):
        raise MedsegError(f"{out} must hold masks of {method}, got {', '.join(known)}; delete the folder")
    own = method == manifest["method"]
    labels = read_mask(out, f"{picture.name}_seg" if own else f"comparison/{picture.name}_{method}")[..., 0]
    if labels.shape != picture.shape:
        raise MedsegError(
            f"masks in {out} must be as large as {picture.image}, {picture.shape}, got {labels.shape}; delete it"
        )
    return labels
