"""This file makes a run of a checkpoint that STEGO's own program wrote, so that every verb works on it.

Such a run was trained on nothing we know of: it has no inputs, no k-means row and no untrained row beside it. Its
clusters are the published cluster probe's, and its linear probe is the method `linear`, each class c as value c + 1,
because 0 is the background.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save

from medseg.config import load_config
from medseg.errors import MedsegError
from medseg.features.windows import feature_shape
from medseg.files import replacing, require_folder
from medseg.naming.classes import one_class_a_cluster, write_classes
from medseg.runs import start_run
from medseg.stego.head import PyramidHead
from medseg.stego.model import ClusterModel, LinearModel
from medseg.stego.published import SHARPNESS, PublishedStego, read_published
from medseg.workflows import parts
from medseg.workflows.naming import name_method, require_naming


def import_stego(
    checkpoint: Path, run: Path, *, config: str = "pictures_dino", overrides: Sequence[str] = ()
) -> dict[str, Any]:
    """Make a run folder of a published STEGO checkpoint.

    The backbone goes to `backbone.safetensors` in the folder. The run's config names that file by its absolute path:
    a folder that is moved needs `features.checkpoint` in its `run.yaml` corrected.

    Args:
        checkpoint: Lightning checkpoint with backbone, head and cluster probe.
        run: new run folder.
        config: path or shipped name; says how pictures are prepared and cut, and which method is the main one.
        overrides: `section.key=value`, over what the checkpoint says.

    Returns:
        `lines` for the terminal, `run`, `backbone`, `clusters` and `methods`.

    Raises:
        MedsegError: the checkpoint lacks a part, the config does not fit it, or the folder holds a run already.
    """
    if (run / "run.yaml").exists():
        raise MedsegError(f"--run must be a new folder, got {run} with a run in it; choose another --run")
    require_folder(run, "--run")
    published = read_published(checkpoint)
    if published.backbone is None:
        raise MedsegError(
            f"{checkpoint} must hold the backbone of its head, got none; give the checkpoint of the whole model"
        )
    weights_file = (run / "backbone.safetensors").absolute()
    resolved = load_config(config, [*_what_it_says(published, weights_file), *overrides])
    require_naming(resolved.naming)
    geometry = parts.patch_geometry(resolved.patches)
    with replacing(weights_file) as beside:
        beside.write_bytes(save({name: value.contiguous() for name, value in published.backbone.weights.items()}))
    backbones = parts.load_backbones(resolved.features, torch.device("cpu"))
    if feature_shape(geometry, backbones)[0] != published.head.feature_dim:
        raise MedsegError(
            f"features.backbone must give the {published.head.feature_dim} channels that the head of {checkpoint} "
            f"reads, got {'+'.join(resolved.features.backbone)}; leave features.backbone as the checkpoint says"
        )
    methods: list[ClusterModel | LinearModel] = [
        ClusterModel("stego", published.head, published.prototypes, "cosine", SHARPNESS)
    ]
    if published.linear is not None:
        methods.append(LinearModel("linear", published.head, *published.linear))
    start_run(run, resolved, training=(), held_out=(), scans=run, device="cpu")
    for method in methods:
        folder = run / "methods" / method.name
        method.save(folder)
        parts.write_facts(folder, parts.feature_facts(backbones, geometry))
        naming = (
            replace(one_class_a_cluster(method.clusters), named_by="training_labels")
            if isinstance(method, LinearModel)
            else name_method(folder, resolved.naming, clusters=method.clusters)
        )
        write_classes(folder / "classes.yaml", naming)
        if method.name == resolved.reconstruct.method:
            write_classes(run / "classes.yaml", naming)
    names = [method.name for method in methods]
    return {
        "lines": [
            f"{checkpoint.name}: {len(published.prototypes)} clusters, codes of {published.head.code_dim} channels on "
            f"{resolved.features.backbone[0]} ({resolved.features.feature}), methods {' and '.join(names)}: {run}",
            f"the run reads {weights_file}; if you move the folder, correct features.checkpoint in its run.yaml",
        ],
        "run": str(run),
        "backbone": resolved.features.backbone[0],
        "clusters": len(published.prototypes),
        "methods": names,
        "failed": {},
    }


def _what_it_says(published: PublishedStego, weights_file: Path) -> list[str]:
    """What of a config follows from a checkpoint, as overrides."""
    assert published.backbone is not None
    head = published.head
    values: dict[str, Any] = {
        "features.backbone": published.backbone.name,
        "features.checkpoint": str(weights_file),
        "features.feature": published.feature,
        "stego.code_dim": head.code_dim,
        "stego.projection": head.projection,
        "stego.clusters": published.classes,
        "stego.extra_clusters": published.extra_clusters,
        "stego.cluster_fit": "probe",
        "stego.cluster_alpha": SHARPNESS,
        "stego.voters": 1,
        "naming.source": "clusters",
        "reconstruct.method": "stego",
    }
    if isinstance(head, PyramidHead):
        values |= {"stego.granularity": head.granularity, "stego.sampling": "maps"}
    return [f"{key}={json.dumps(value)}" for key, value in values.items()]
