"""Tests of what a training begins with and which weights it keeps."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from stego.fakes import FakeStore, fake_dataset, one_process, small_settings
from stego.published_files import tiny_stego, write_lightning

from medseg.errors import MedsegError
from medseg.files import hash_file
from medseg.patches.datasets import PatchDataset
from medseg.patches.pairs import find_pairs
from medseg.stego.model import ClusterModel, LinearModel, load_method
from medseg.stego.published import initial_weights, read_published
from medseg.stego.settings import StegoSettings
from medseg.stego.training import StegoRun, train


def run(folder: Path, settings: StegoSettings, dataset: PatchDataset | None = None, **more: Any) -> StegoRun:
    dataset = dataset or fake_dataset()
    pairs = find_pairs(dataset, neighbours=settings.neighbours)
    return train(dataset, pairs, settings, run_dir=folder, fabric=one_process(), seed=3, **more)


def tiny_settings(**changes: Any) -> StegoSettings:
    return small_settings(**({"steps": 2, "code_dim": 8, "clusters": 4, "rec_weight": 0.1} | changes))


def wide_dataset(*, labelled: bool = False) -> PatchDataset:
    stores = [FakeStore(f"case{k}", 8, seed=k, dim=48) for k in range(2)]
    return PatchDataset(stores, [store.tissue for store in stores] if labelled else None)


def last(folder: Path) -> dict[str, Any]:
    return torch.load(folder / "checkpoints" / "last.pt", weights_only=True)


def test_a_training_goes_on_from_a_published_checkpoint(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    path = write_lightning(tmp_path / "stego.ckpt", tiny_stego())
    settings = tiny_settings(learning_rate=1e-12, probe_learning_rate=1e-12)
    found = run(tmp_path / "run", settings, wide_dataset(), initial=initial_weights(path))
    published = read_published(path)
    for name, value in published.head.state_dict().items():
        assert torch.allclose(found.methods["stego"].head.state_dict()[name], value, atol=1e-6)  # type: ignore[union-attr]
    assert torch.allclose(found.methods["stego"].prototypes, published.prototypes, atol=1e-6)
    assert not torch.allclose(found.methods["untrained"].head.linear.weight, published.head.linear.weight)  # type: ignore[union-attr,operator,arg-type]
    assert "the decoder begins anew" in caplog.text


def test_a_training_begins_where_another_run_ended(tmp_path: Path) -> None:
    run(tmp_path / "first", tiny_settings(steps=4), wide_dataset(labelled=True))
    initial = initial_weights(tmp_path / "first")
    run(
        tmp_path / "second",
        tiny_settings(learning_rate=1e-12, probe_learning_rate=1e-12),
        wide_dataset(labelled=True),
        initial=initial,
    )
    first, second = last(tmp_path / "first"), last(tmp_path / "second")
    for part in ("head", "probes", "decoder"):
        for name, value in first[part].items():
            assert torch.allclose(second[part][name], value, atol=1e-6), name
    assert initial_weights(tmp_path / "first" / "checkpoints" / "last.pt").keys() == initial.keys()


def test_a_start_changes_the_run(tmp_path: Path) -> None:
    run(tmp_path / "first", tiny_settings(), wide_dataset())
    initial = initial_weights(tmp_path / "first")
    run(tmp_path / "second", tiny_settings(), wide_dataset(), initial=initial)
    assert last(tmp_path / "second")["key"] != last(tmp_path / "first")["key"]
    with pytest.raises(MedsegError, match="same settings"):
        run(tmp_path / "second", tiny_settings(), wide_dataset())
    before = hash_file(tmp_path / "second" / "methods" / "stego" / "weights.safetensors")
    run(tmp_path / "second", tiny_settings(), wide_dataset(), initial=initial)  # trained already: nothing moves
    assert hash_file(tmp_path / "second" / "methods" / "stego" / "weights.safetensors") == before


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"code_dim": 7}, r"linear\.weight \[8, 48, 1, 1\] where \[7, 48, 1, 1\] is needed; set stego\.code_dim"),
        ({"projection": "linear"}, r"nonlinear\.0\.weight .* where none is needed"),
        ({"clusters": 5}, r"prototypes \[4, 8\] where \[5, 8\] is needed; set stego\.clusters"),
    ],
)
def test_a_start_that_does_not_fit_is_one_clear_error(tmp_path: Path, changes: dict[str, Any], complaint: str) -> None:
    path = write_lightning(tmp_path / "stego.ckpt", tiny_stego())
    with pytest.raises(MedsegError, match=complaint):
        run(tmp_path / "run", tiny_settings(**changes), wide_dataset(), initial=initial_weights(path))


def test_a_linear_probe_for_other_classes_begins_anew(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    path = write_lightning(tmp_path / "stego.ckpt", tiny_stego())
    found = run(tmp_path / "run", tiny_settings(), wide_dataset(labelled=True), initial=initial_weights(path))
    assert found.linear is not None and found.linear.clusters == 3
    assert "the linear probe begins anew" in caplog.text


# What is kept


@pytest.mark.parametrize(("every", "steps"), [(2, [2, 4, 6]), (4, [4]), ("epoch", [6]), (None, [])])
def test_weights_are_kept_as_often_as_asked(tmp_path: Path, every: int | str | None, steps: list[int]) -> None:
    run(tmp_path, small_settings(keep_every=every, checkpoint_every=5))  # 24 patches in batches of 4
    kept = sorted((tmp_path / "checkpoints").glob("step_*.pt"))
    assert [path.name for path in kept] == [f"step_{step:06d}.pt" for step in steps]
    for path, step in zip(kept, steps, strict=True):
        state = torch.load(path, weights_only=True)
        assert set(state) == {"head", "probes", "decoder", "step", "shifts", "key"}
        assert (state["step"], state["key"]) == (step, last(tmp_path)["key"])
    if 6 in steps:
        assert torch.equal(
            torch.load(kept[-1], weights_only=True)["head"]["linear.weight"], last(tmp_path)["head"]["linear.weight"]
        )


def test_keeping_weights_changes_no_run(tmp_path: Path) -> None:
    run(tmp_path, small_settings())
    before = last(tmp_path)["key"]
    run(tmp_path, small_settings(keep_every=1, granularity=2))
    assert last(tmp_path)["key"] == before


# The linear probe as a method


def test_the_linear_probe_is_a_method_that_is_read_back_as_it_was(tmp_path: Path) -> None:
    found = run(tmp_path, small_settings(steps=60, learning_rate=5e-3, sampling="corners"), fake_dataset(labelled=True))
    assert found.linear is not None and "linear" not in found.methods
    again = load_method(tmp_path / "methods" / "linear")
    assert isinstance(again, LinearModel)
    dataset = fake_dataset(labelled=True)
    features = dataset[0]["features"][None]
    probabilities = again.probabilities(features)
    assert torch.equal(probabilities, found.linear.probabilities(features))
    assert torch.allclose(probabilities.sum(1), torch.ones(1, 8, 8))
    assert (again.clusters, again.feature_dim) == (3, 6)
    assigned = again.assign(features[0].flatten(1).T)
    assert torch.equal(assigned, probabilities.argmax(1).flatten())
    assert (assigned == dataset[0]["labels"].flatten()).float().mean() > 0.9
    with pytest.raises(MedsegError, match="must hold a clustering, got the method linear"):
        ClusterModel.load(tmp_path / "methods" / "linear")
    with pytest.raises(MedsegError, match="must hold a linear probe, got the method stego"):
        LinearModel.load(tmp_path / "methods" / "stego")


def test_without_labels_there_is_no_linear_probe(tmp_path: Path) -> None:
    assert run(tmp_path, small_settings(steps=2)).linear is None
    assert not (tmp_path / "methods" / "linear").exists()
