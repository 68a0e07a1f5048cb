"""What the filter-bank path costs: all of it for one volume, against Frangi's filter with three scales, in one run.

    python benchmarks/filter_bank.py [--repeats 3]

The path is what reconstruction does from the standardised image to class probabilities, without refinement: flux maps,
the filter bank's features of every voxel, head and clusters of the shipped config, and the blending. Frangi's filter is
scikit-image's, for bright tubes, at 1, 2 and 3 voxels. Both see the same phantom of our own, whole. They are measured
in turns, so that both see the same machine.
"""

from __future__ import annotations

import numpy as np
import torch
from monai.data import MetaTensor
from skimage.filters import frangi
from timing import Work, compare, read_repeats

from medseg.features.filterbank import FilterBank
from medseg.patches.slicing import PatchGeometry
from medseg.phantoms.vessels import make_vessel_phantom
from medseg.prepare.vesselness import flux_maps, tissue_median
from medseg.reconstruction.predict import Method, Voter, predict_case
from medseg.stego.head import Head
from medseg.stego.model import ClusterModel

SHAPE, SPACING = (160, 160, 160), (0.5, 0.5, 0.6)
GEOMETRY = PatchGeometry("axial", size=56, overlap=0.0)
BATCH, CODE_DIM, CLUSTERS = 32, 16, 16


def main() -> None:
    """Measure and print."""
    repeats = read_repeats(__doc__, "turns of the path and Frangi's filter, each on one volume")
    phantom = make_vessel_phantom(seed=0, shape=SHAPE, spacing=SPACING)
    everywhere = np.ones(SHAPE, bool)
    image = phantom.image.astype(np.float32)
    image /= tissue_median(image, everywhere)
    bank = FilterBank()
    torch.manual_seed(0)
    clusterer = ClusterModel("stego", Head(bank.dim, CODE_DIM), torch.randn(CLUSTERS, CODE_DIM), "cosine", 10.0)
    methods = {"stego": Method((Voter(clusterer, {0: 1}),))}

    def filter_bank_path() -> np.ndarray:
        maps = flux_maps(image, everywhere, SPACING)
        sample = {
            "image": MetaTensor(torch.from_numpy(image)[None], affine=phantom.affine),
            "region": torch.from_numpy(everywhere)[None],
            "salience": torch.from_numpy(maps.salience)[None],
            "tubularity": torch.from_numpy(maps.tubularity)[None],
            "case_id": "phantom",
            "facts": {"contrast_scale": maps.contrast_scale},
        }
        return predict_case(
            sample,
            methods,
            [bank],
            values=[1],
            geometry=GEOMETRY,
            planes=["axial"],
            batch=BATCH,
            device=torch.device("cpu"),
        )["stego"].median

    def frangi_filter() -> np.ndarray:
        return frangi(image, sigmas=(1, 2, 3), black_ridges=False)

    compare(
        Work("filter-bank path", filter_bank_path),
        Work("Frangi", frangi_filter),
        repeats,
        unit="volume",
        target="at most 3x",
    )


if __name__ == "__main__":
    main()
