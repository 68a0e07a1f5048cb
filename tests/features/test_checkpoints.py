"""Tests of medseg.features.checkpoints: what is read, what is refused, and that nothing is ever run."""

import os
import pathlib
import pickle
import sys
import types
import zipfile
from collections import OrderedDict, defaultdict
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from medseg.errors import MedsegError
from medseg.features.checkpoints import hash_weights, read_checkpoint, read_weights, strip_prefix

GOLDEN = np.load(Path(__file__).parents[1] / "golden" / "vit_tiny.npz")


@pytest.fixture(scope="module")
def weights() -> dict[str, torch.Tensor]:
    return {k.removeprefix("sd/"): torch.from_numpy(GOLDEN[k]) for k in GOLDEN.files if k.startswith("sd/")}


@pytest.fixture
def foreign_classes(monkeypatch):
    """Classes of a program that is gone when its checkpoint is read: config, dictionary, list, callable."""
    module = types.ModuleType("gone_program")

    class Config:
        def __init__(self):
            self.content = {"lr": torch.ones(1)}

        def __setstate__(self, state):
            pytest.fail("a foreign class was run")

    class Settings(dict):
        pass

    class Steps(list):
        pass

    for made in (Config, Settings, Steps):
        made.__module__, made.__qualname__ = "gone_program", made.__name__
        setattr(module, made.__name__, made)
    monkeypatch.setitem(sys.modules, "gone_program", module)
    return module


class Payload:
    """Unpickling this with an ordinary reader would leave a file behind."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return (pathlib.Path.touch, (self.path,))


# What is read


@pytest.mark.parametrize("prefix", ["", "teacher.", "module.", "backbone.", "module.backbone.", "module.encoder_q."])
@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_every_prefix_and_format_gives_the_same_weights(prefix, suffix, weights, tmp_path):
    path = tmp_path / f"w{suffix}"
    prefixed = {prefix + name: value for name, value in weights.items()}
    if suffix == ".safetensors":
        save_file(prefixed, path)
    else:
        torch.save(prefixed, path)
    found, stripped = strip_prefix(read_weights(path))
    assert found == prefix
    assert stripped.keys() == weights.keys()
    assert hash_weights(stripped) == hash_weights(weights)


@pytest.mark.parametrize("outer", [["state_dict"], ["teacher"], ["model"], ["model", "state_dict"]])
def test_weights_are_found_under_their_outer_names(outer, weights, tmp_path):
    content = weights
    for key in reversed(outer):
        content = {key: content, "epoch": 7, "note": "plain"}
    torch.save(content, tmp_path / "w.pth")
    assert hash_weights(read_weights(tmp_path / "w.pth")) == hash_weights(weights)


def test_the_old_format_before_zip_is_read(weights, tmp_path):
    torch.save({"state_dict": weights}, tmp_path / "old.pth.tar", _use_new_zipfile_serialization=False)
    assert hash_weights(read_weights(tmp_path / "old.pth.tar")) == hash_weights(weights)


def test_parameters_are_read_as_plain_tensors(tmp_path):
    torch.save({"a": torch.nn.Parameter(torch.ones(2))}, tmp_path / "w.pth")
    assert not read_weights(tmp_path / "w.pth")["a"].requires_grad


@pytest.mark.parametrize("others", [("teacher.", "student."), ("m.encoder_q.", "m.encoder_k.")])
def test_teacher_and_query_encoder_win(others, weights):
    chosen, other = others
    both = {other + name: -value for name, value in weights.items()}
    both |= {chosen + name: value for name, value in weights.items()}
    assert strip_prefix(both)[0] == chosen


def test_the_backbone_within_a_whole_stego_model_is_found(weights):
    model = {f"net.model.{name}": value for name, value in weights.items()}
    model |= {"net.cluster1.0.weight": torch.ones(1), "linear_probe.weight": torch.ones(1)}
    prefix, stripped = strip_prefix(model)
    assert prefix == "net.model."
    assert stripped.keys() == weights.keys()


def test_a_resnet_begins_at_its_own_first_layer_not_at_a_blocks():
    names = ["module.encoder_q.conv1.weight", "module.encoder_q.layer1.0.conv1.weight", "module.queue"]
    prefix, stripped = strip_prefix({name: torch.zeros(1) for name in names})
    assert prefix == "module.encoder_q."
    assert list(stripped) == ["conv1.weight", "layer1.0.conv1.weight"]


def test_without_a_known_network_nothing_is_stripped():
    assert strip_prefix({"mypatch_embed.proj.weight": torch.zeros(1), "lstm.w": torch.zeros(1)}) == ("", {})


# Lightning checkpoints of programs that are not here


def lightning_content(weights, program):
    transposed = weights["norm.weight"].reshape(6, 8).t()
    return {
        "epoch": 3,
        "state_dict": OrderedDict(
            weights,
            view=transposed,
            half=transposed.half(),
            count=torch.tensor(5),
            parameter=torch.nn.Parameter(transposed),
        ),
        "hyper_parameters": program.Config(),
        "more": program.Settings(a=1, b=program.Steps([1, 2])),
        "callbacks": {program.Config: {"best": pathlib.PurePosixPath("a/b"), "seen": defaultdict(list, a=[1])}},
        "scalar": np.float64(1.5),
    }


def test_a_lightning_checkpoint_gives_its_tensors_and_runs_nothing(weights, foreign_classes, tmp_path, caplog):
    content = lightning_content(weights, foreign_classes)
    torch.save(content, tmp_path / "stego.ckpt")
    with caplog.at_level("INFO", "medseg"):
        read = read_checkpoint(tmp_path / "stego.ckpt")
    assert read["epoch"] == 3
    got = read_weights(tmp_path / "stego.ckpt")
    wanted = {name: value.detach() for name, value in content["state_dict"].items()}
    assert hash_weights(got) == hash_weights(wanted)
    assert got["parameter"].is_contiguous() or torch.equal(got["parameter"], wanted["parameter"])
    assert "gone_program.Config" in caplog.text


def test_code_beside_good_weights_is_not_run(weights, tmp_path):
    bait = tmp_path / "RAN"
    torch.save({"state_dict": weights, "callbacks": Payload(bait)}, tmp_path / "bait.ckpt")
    assert read_weights(tmp_path / "bait.ckpt").keys() == weights.keys()
    assert not bait.exists()


# What is refused


@pytest.mark.parametrize("place", ["state_dict", "model", "weights"])
def test_code_in_place_of_weights_is_refused_unrun(place, tmp_path):
    bait = tmp_path / "RAN"
    torch.save({place: Payload(bait)}, tmp_path / "bait.ckpt")
    with pytest.raises(
        MedsegError, match=r"bait\.ckpt must hold only tensors and plain values.*not executed"
    ) as caught:
        read_weights(tmp_path / "bait.ckpt")
    assert "\n" not in str(caught.value)
    assert not bait.exists()


def test_an_ordinary_pickle_is_refused_unrun(tmp_path):
    bait = tmp_path / "RAN"
    (tmp_path / "w.pth").write_bytes(pickle.dumps({"state_dict": Payload(bait)}, protocol=2))
    with pytest.raises(MedsegError, match=r"w\.pth must hold only tensors"):
        read_weights(tmp_path / "w.pth")
    assert not bait.exists()


@pytest.mark.skipif("MEDSEG_TEST_DATA" not in os.environ, reason="needs the shared data")
@pytest.mark.parametrize("name", ["unsafe_pickle.ckpt", "unsafe_zip.ckpt", "truncated.ckpt", "text.png", "unsafe.yaml"])
def test_shared_broken_files_are_refused_in_one_line_and_leave_nothing(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(MedsegError, match=name) as caught:
        read_weights(Path(os.environ["MEDSEG_TEST_DATA"]) / "broken" / name)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_a_tensor_that_reaches_beyond_its_storage_is_refused(foreign_classes, tmp_path):
    class Beyond:
        def __reduce__(self):
            storage = torch.ones(2).untyped_storage()
            typed = torch.storage.TypedStorage(wrap_storage=storage, dtype=torch.float32, _internal=True)
            return (torch._utils._rebuild_tensor_v2, (typed, 0, (1000,), (1,), False, OrderedDict()))

    torch.save({"x": foreign_classes.Config(), "state_dict": {"a": Beyond()}}, tmp_path / "beyond.ckpt")
    with pytest.raises(MedsegError, match=r"beyond\.ckpt must be a complete checkpoint, got .*out of bounds"):
        read_weights(tmp_path / "beyond.ckpt")


def test_compressed_entries_are_refused_because_they_can_grow_without_limit(weights, foreign_classes, tmp_path):
    torch.save({"state_dict": weights, "x": foreign_classes.Config()}, tmp_path / "plain.ckpt")
    with (
        zipfile.ZipFile(tmp_path / "plain.ckpt") as plain,
        zipfile.ZipFile(tmp_path / "bomb.ckpt", "w", zipfile.ZIP_DEFLATED) as packed,
    ):
        for entry in plain.namelist():
            packed.writestr(entry, plain.read(entry))
    with pytest.raises(MedsegError, match=r"bomb\.ckpt must be a complete checkpoint, got compressed entry"):
        read_weights(tmp_path / "bomb.ckpt")


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_a_cut_file_is_refused(suffix, weights, tmp_path):
    path = tmp_path / f"w{suffix}"
    save_file(weights, path) if suffix == ".safetensors" else torch.save(weights, path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(MedsegError, match=f"w{suffix} must be a complete"):
        read_weights(path)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(MedsegError, match=r"nowhere\.pth must be an existing checkpoint"):
        read_weights(tmp_path / "nowhere.pth")


@pytest.mark.parametrize("content", [{"epoch": 1}, {"state_dict": {}}, {}])
def test_a_file_without_tensors_is_refused(content, tmp_path):
    torch.save(content, tmp_path / "empty.pth")
    with pytest.raises(MedsegError, match=r"empty\.pth must hold tensors"):
        read_weights(tmp_path / "empty.pth")


def test_a_bare_tensor_is_refused(tmp_path):
    torch.save(torch.ones(3), tmp_path / "bare.pth")
    with pytest.raises(MedsegError, match=r"bare\.pth must hold a dictionary of tensors, got a Tensor"):
        read_weights(tmp_path / "bare.pth")


# Hashes


def test_the_hash_sees_values_names_shapes_types_and_settings():
    base = {"a": torch.ones(4), "b": torch.zeros(2)}
    others = [
        {"a": torch.ones(4), "b": torch.tensor([0.0, 1e-30])},
        {"a": torch.ones(4), "c": torch.zeros(2)},
        {"a": torch.ones(2, 2), "b": torch.zeros(2)},
        {"a": torch.ones(4), "b": torch.zeros(2, dtype=torch.int32)},
    ]
    hashes = {hash_weights(w) for w in [base, *others]} | {hash_weights(base, "KK")}
    assert len(hashes) == 6
    assert hash_weights(dict(reversed(base.items()))) == hash_weights(base)
    assert len(hash_weights({"a": torch.tensor(1), "b": torch.ones(2, dtype=torch.bfloat16), "c": torch.ones(0)})) == 64
