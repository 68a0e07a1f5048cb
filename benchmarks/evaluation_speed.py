"""What an evaluation costs beside the networks: mirror image, clusters and two CRFs against two bare forward passes.

    python benchmarks/evaluation_speed.py [--repeats 3]

Pictures of 320 pixels, as STEGO is evaluated: both run DINO's ViT-S/8 (random weights, which change no time) on each
picture and its mirror image. One does nothing else. The other is the evaluation's own way from the prepared picture to
its labels: codes of both averaged and enlarged, then the probabilities of 27 clusters and of 27 classes of a linear
probe, each sharpened by the CRF in other processes. The two are measured in turns, so that both see the same machine.
The time on the clock counts, for one picture's CRFs run beside the next one's networks; cpu is of the main process.
"""

# Nothing heavy is imported up here: each process of the CRF begins by reading this file.
from __future__ import annotations

from collections.abc import Iterator
from typing import Any

PICTURES, SIDE, CLASSES, CODE_DIM = 6, 320, 27, 70
PROCESSES = 2


def make_sample() -> dict[str, Any]:
    """Smooth coloured pictures: a CRF on noise would have other neighbours."""
    import numpy as np
    import torch
    from scipy.ndimage import gaussian_filter

    smooth = gaussian_filter(np.random.default_rng(0).normal(size=(3, SIDE, SIDE, PICTURES)), (0, 12, 12, 0))
    values = (smooth - smooth.min()) / (smooth.max() - smooth.min())
    return {"image": torch.from_numpy(values).float(), "facts": {"display": "rgb"}}


def main() -> None:
    """Measure and print."""
    import torch
    from timing import Work, compare, read_repeats

    from medseg.features.backbones import load_slice_backbone, to_rgb
    from medseg.reconstruction.dense_crf import SliceJob, in_bytes, label_slices
    from medseg.reconstruction.slices import slice_log_probabilities
    from medseg.stego.head import Head
    from medseg.stego.model import ClusterModel, LinearModel

    repeats = read_repeats(__doc__, f"turns of {PICTURES} pictures each")
    torch.manual_seed(0)
    backbone = load_slice_backbone("vit_small_patch8_224.dino", pretrained=False)
    head = Head(backbone.dim, CODE_DIM)
    models = {
        "stego": ClusterModel("stego", head, torch.randn(CLASSES, CODE_DIM), "cosine", 2.0),
        "linear": LinearModel("linear", head, torch.randn(CLASSES, CODE_DIM), torch.zeros(CLASSES)),
    }
    sample = make_sample()
    image = sample["image"]

    def passes() -> None:
        for frame in range(PICTURES):
            shown = to_rgb(image[None, ..., frame], "rgb")
            with torch.inference_mode():
                backbone(shown)
                backbone(shown.flip(-1))

    def jobs() -> Iterator[SliceJob]:
        device = torch.device("cpu")
        for frame, found in slice_log_probabilities(sample, models, [backbone], flip=True, device=device):
            shown = in_bytes(image[..., frame].permute(1, 2, 0).numpy())
            yield SliceJob("picture", frame, shown, {name: maps.numpy() for name, maps in found.items()}, crf=True)

    def evaluate() -> None:
        assert len(list(label_slices(jobs(), processes=PROCESSES))) == PICTURES

    with torch.inference_mode():  # warms up
        backbone(to_rgb(image[None, ..., 0], "rgb"))
    whole = Work(f"flip and two CRFs in {PROCESSES} processes", evaluate, PICTURES)
    bare = Work("two forward passes", passes, PICTURES)
    compare(whole, bare, repeats, unit="picture", target="at most 1.5x")


if __name__ == "__main__":
    main()
