"""What each stage of DatUS costs beside the networks, and how its classes fit labels beside k-means on the same keys.

    python benchmarks/datus.py PICTURES [--classes suim] [--config pictures] [--clusters 8] [--merge-to N] [--out DIR]

A first run computes all stages of a folder with labels. Right after it, in the same process and on the same machine,
the bare networks look at the same prepared pictures and at the same crops, and nothing else is done: the shares are of
their time. Then the number of clusters is changed, and then the resolution; both runs take what is stored. Seconds are
of computing in this one process, the CRF included, because other programs disturb them less than those on the clock.
Classes are matched to the labels that are scored (oracle), for DatUS and for k-means alike.
"""

# Nothing heavy is imported up here: each process of the CRF begins by reading this file.
from __future__ import annotations

import argparse
import os
import shutil
import tempfile
from pathlib import Path
from time import process_time
from typing import Any


def seconds_of_networks(images: Path, config: str, stages: Path) -> dict[str, float]:
    """Seconds of computing of the bare networks: on whole pictures, and on the crops of all large segments."""
    import numpy as np
    import torch

    from medseg.datus.crops import BATCH, CROP_SIDE, masked_crops
    from medseg.datus.labelling import LEAST_CELLS
    from medseg.features.backbones import to_rgb
    from medseg.scans.folders import find_cases
    from medseg.workflows.correspondence import Viewer
    from medseg.workflows.datus_stages import shown

    viewer = Viewer(config, None, ["run.device=cpu"], None)
    spent = {"keys": 0.0, "crops": 0.0}
    for case in find_cases(images).cases:
        picture = shown(viewer.prepared(case), 0)
        (stored,) = (stages / "segments").glob(f"{case.case_id}_0000_*.npz")
        segments = np.load(stored)["segments"]
        sizes = np.bincount(segments[segments >= 0])
        crops = masked_crops(picture, segments, CROP_SIDE)[0][torch.from_numpy(sizes >= LEAST_CELLS)]
        for stage, batches in (("keys", [to_rgb(picture[None], "rgb")]), ("crops", crops.split(BATCH))):
            start = process_time()
            with torch.inference_mode():
                for batch in batches:
                    for backbone in viewer.backbones:
                        backbone(batch)
            spent[stage] += process_time() - start
    return spent


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", type=Path)
    parser.add_argument("--classes")
    parser.add_argument("--config", default="pictures")
    parser.add_argument("--clusters", type=int, default=8)
    parser.add_argument("--merge-to", type=int)
    parser.add_argument("--out", type=Path, help="keeps the masks; must not be there yet")
    asked = parser.parse_args()

    from medseg.scans.shipped_schemes import load_scheme
    from medseg.workflows import datus_stages
    from medseg.workflows.datus import run_datus

    datus_stages.perf_counter = process_time  # in place of the clock on the wall
    out = asked.out or Path(tempfile.mkdtemp())
    settings: dict[str, Any] = {
        "config": asked.config, "overrides": ["run.device=cpu"], "clusters": asked.clusters, "processes": 0,
        "merge_to": asked.merge_to, "scheme": load_scheme(asked.classes) if asked.classes else None,
    }  # fmt: skip
    first = run_datus(asked.images, out, **settings)
    bare = seconds_of_networks(asked.images, asked.config, out / "stages")
    passes = sum(bare.values())
    print(f"{len(first['done'])} pictures, {sum(map(sum, first['segments'].values()))} segments, ", end="")
    print(f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    print(f"bare networks: {passes:.2f} s, of it pictures {bare['keys']:.2f} s, crops {bare['crops']:.2f} s")
    for stage, seconds in first["seconds"].items():
        beside = seconds - bare.get(stage, 0.0)
        print(
            f"  {stage:9} {seconds:7.2f} s, beside the networks {beside:7.2f} s: {beside / passes:7.1%} of their time"
        )
    for row in first["rows"]:
        told = ", ".join(f"{name} {row[name]:.3f}" for name in ("mean_iou", "accuracy", "mean_dice"))
        print(f"  {row['method']:20} {row['naming']}: {told}")
    for name, change in (("clusters", {"clusters": asked.clusters + 2}), ("resolution", {"resolution": 1.2})):
        for crf in (False, True):
            again = run_datus(asked.images, out, **{**settings, **change}, crf=crf, labels=False)["seconds"]
            told = ", ".join(f"{stage} {seconds:.2f}" for stage, seconds in again.items())
            print(f"other {name}, CRF {'on' if crf else 'off'}: {sum(again.values()):.2f} s ({told})")
    if asked.out is None:
        shutil.rmtree(out)


if __name__ == "__main__":
    main()
