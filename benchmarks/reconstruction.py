"""What reconstruction costs beyond the network: all of it without refinement, against the forward passes, in one run.

    python benchmarks/reconstruction.py [--repeats 3]

Both sides see the same 64 windows of 56 voxels, shown as 224 pixels, and run DINO's ViT-S/8 in the same batches. The
forward passes get their pixels ready made. Reconstruction cuts and magnifies the windows, runs the network, the head
and the clusters, and blends the class probabilities of overlapping windows into a volume. The weights are random,
which does not change the time. The two are measured in turns, so that both see the same machine.
"""

from __future__ import annotations

import numpy as np
import torch
from monai.data import MetaTensor
from timing import Work, compare, read_repeats

from medseg.features.backbones import load_slice_backbone, to_rgb
from medseg.patches.slicing import PatchGeometry, cut_all, grid_locations
from medseg.reconstruction.predict import Method, Voter, predict_case
from medseg.stego.head import Head
from medseg.stego.model import ClusterModel

GEOMETRY = PatchGeometry("axial", size=56, overlap=0.5, magnification=4)
SHAPE = (140, 140, 4)  # 4 x 4 windows in each of 4 slices
WINDOWS, BATCH, DIM, CODE_DIM, CLUSTERS = 64, 8, 384, 16, 6


def main() -> None:
    """Measure and print."""
    repeats = read_repeats(__doc__, "turns of one reconstruction and the forward passes of its windows")
    torch.manual_seed(0)
    sample = {"image": MetaTensor(torch.rand(1, *SHAPE) * 3), "region": torch.ones(1, *SHAPE), "case_id": "case"}
    backbone = load_slice_backbone("vit_small_patch8_224.dino", pretrained=False)
    clusterer = ClusterModel("stego", Head(DIM, CODE_DIM), torch.randn(CLUSTERS, CODE_DIM), "cosine", 2.0)
    methods = {"stego": Method((Voter(clusterer, {0: 1}),))}
    locations = grid_locations(SHAPE, GEOMETRY)
    assert len(locations) == WINDOWS
    pixels = to_rgb(cut_all(sample["image"], locations, GEOMETRY))

    def reconstruct() -> np.ndarray:
        return predict_case(
            sample,
            methods,
            [backbone],
            values=[1],
            geometry=GEOMETRY,
            planes=["axial"],
            batch=BATCH,
            device=torch.device("cpu"),
        )["stego"].median

    def forward_passes() -> None:
        with torch.inference_mode():
            for batch in pixels.split(BATCH):
                backbone(batch)

    backbone(pixels[:BATCH])
    clusterer.probabilities(torch.rand(1, DIM, 28, 28))
    compare(
        Work("reconstruction", reconstruct),
        Work("forward passes", forward_passes),
        repeats,
        unit="volume",
        target="at most 1.5x",
    )


if __name__ == "__main__":
    main()
