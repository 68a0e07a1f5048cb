"""What stored features save: a training step on them against the same step with the live network, in one run.

    python benchmarks/features.py [--repeats 3]

Both steps are the published one (batch 16, each anchor with its positive, 384 x 28 x 28 features, float32). The stored
step reads its 32 feature maps from the store through the trainer's own loader; the files are in the page cache, as they
are in training. The live step reads the same patches' images and runs DINO's ViT-S/8 on them at 224 x 224 pixels; the
weights are random, which does not change the time. The two are measured in turns, so that both see the same machine.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from timing import Work, compare, read_repeats
from torch import Tensor, nn

from medseg.features.backbones import load_slice_backbone, to_rgb
from medseg.features.store import StoredPatches, extract_case
from medseg.patches.datasets import PairOrder, PatchDataset, pair_loader
from medseg.patches.slicing import PatchGeometry, cut_all
from medseg.stego.settings import settings_from_preset
from medseg.stego.step import build_optimiser, build_parts, compute_losses
from medseg.stego.training import draw_for

GEOMETRY = PatchGeometry(size=56, magnification=4)  # 56 voxels shown as 224 pixels
PATCHES, BATCH, DIM = 64, 16, 384
STORED_STEPS_A_TURN = 5


class OneLayer(nn.Module):
    """Fills the store quickly with maps of the right size."""

    name, dim, stride, fingerprint = "one layer", DIM, 8, "one layer"

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv2d(3, DIM, 8, stride=8).requires_grad_(False)

    def forward(self, patches: Tensor) -> Tensor:
        return self.layer(patches)


def make_store(folder: Path) -> tuple[dict, np.ndarray, StoredPatches]:
    """A small volume, the places of its patches, and the store of their features."""
    torch.manual_seed(0)
    image = torch.rand(1, 80, 80, PATCHES) * 3
    sample = {"image": image, "salience": image / 3, "case_id": "case", "patient": "case"}
    locations = np.stack([np.arange(PATCHES), np.arange(PATCHES) % 24, np.arange(PATCHES) % 20], axis=1)
    stored = extract_case(sample, locations, GEOMETRY, [OneLayer()], folder=folder, key="0" * 64)
    return sample, locations, stored


def endless_batches(dataset: PatchDataset) -> Iterator[dict[str, Tensor]]:
    """The trainer's loader over random pairs."""
    neighbours = np.random.default_rng(0).integers(PATCHES, size=(PATCHES, 7))
    yield from pair_loader(dataset, PairOrder(neighbours, batch=BATCH, seed=0, start=0, stop=10**6))


def make_step() -> Callable[[dict[str, Tensor], int], None]:
    """The published training step: losses, gradients, Adam."""
    settings = settings_from_preset(batch=BATCH)
    parts = build_parts(DIM, settings, classes=0, seed=0)
    optimiser = build_optimiser(parts, settings)

    def step(batch: dict[str, Tensor], number: int) -> None:
        draws = draw_for(settings, BATCH, DIM, 0, number)
        loss = compute_losses(parts, batch, draws, settings, settings.term_shifts).total
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()

    return step


def main() -> None:
    """Measure and print."""
    repeats = read_repeats(__doc__, "turns of 5 stored steps and 1 live step")
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        sample, locations, stored = make_store(Path(folder))
        batches = endless_batches(PatchDataset([stored]))
        backbone = load_slice_backbone("vit_small_patch8_224.dino", pretrained=False)
        step = make_step()
        drawn = np.random.default_rng(1)

        def stored_steps() -> None:
            for number in range(STORED_STEPS_A_TURN):
                step(next(batches), number)

        def live_step() -> None:
            images = cut_all(sample["image"], locations[drawn.integers(PATCHES, size=2 * BATCH)], GEOMETRY)
            features = backbone(to_rgb(images))
            assert features.shape == (2 * BATCH, DIM, 28, 28)
            step({"features": features[:BATCH], "positive_features": features[BATCH:]}, 0)

        backbone(torch.zeros(1, 3, 224, 224))  # warms both paths up
        step(next(batches), 0)
        stored_work = Work("stored", stored_steps, STORED_STEPS_A_TURN)
        compare(Work("live", live_step), stored_work, repeats, unit="step", target="at least 25x")


if __name__ == "__main__":
    main()
