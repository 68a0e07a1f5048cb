from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from features.student.vessels.fakes import fake_sample, fake_student

from medseg.errors import MedsegError
from medseg.features.backbones import VolumeBackbone
from medseg.features.student.vessels import student as module
from medseg.features.student.vessels.network import network_inputs
from medseg.features.student.vessels.student import VesselStudent, load_student, region_tiles, shipped_student
from medseg.features.windows import is_volume_backbone

WHOLE = (slice(None), slice(None), slice(None))


def mapped(student: VesselStudent, **changes: object) -> dict[str, object]:
    sample = fake_sample() | changes
    return sample | student.maps(sample)


def test_maps_are_what_the_network_says_of_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "half_precision", lambda _: torch.autocast("cpu", enabled=False))
    student = fake_student()
    sample = fake_sample((24, 28, 20))
    sample["region"] = torch.ones_like(sample["region"])
    found = student.maps(sample)
    logits, features = student.net(network_inputs(sample["image"][0].as_tensor(), 1.0)[None])
    torch.testing.assert_close(found["student_probability"][0], logits[0, 0].sigmoid(), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found["student_features"].float(), features[0], rtol=2e-3, atol=1e-3)


@pytest.mark.parametrize("shape", [(72, 10, 9), (9, 70, 13)])
def test_tiles_give_the_whole(shape: tuple[int, int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "half_precision", lambda _: torch.autocast("cpu", enabled=False))
    student, sample = fake_student(), fake_sample(shape)
    sample["region"] = torch.ones_like(sample["region"])
    whole = student.maps(sample)
    monkeypatch.setattr(module, "region_tiles", lambda region, multiple: region_tiles(region, multiple, tile_voxels=24))
    # Beyond its field of view a halo changes nothing at all; the usual one leaves what hardly counts.
    for halo, tolerance in ((24, 1e-4), (module.HALO_VOXELS, 0.02)):
        monkeypatch.setattr(module, "HALO_VOXELS", halo)
        tiled = student.maps(sample)
        for name in whole:
            assert (tiled[name].float() - whole[name].float()).abs().max() <= tolerance, (halo, name)
    monkeypatch.setattr(module, "HALO_VOXELS", 0)
    assert (student.maps(sample)["student_probability"] - whole["student_probability"]).abs().max() > 1e-3


def test_tiles_cover_the_region_once_begin_at_multiples_and_leave_out_the_rest() -> None:
    region = np.zeros((50, 31, 23), bool)
    region[7:49, 3:9, 5:6] = True
    region[11:12, 3:29, 5:23] = True
    count = np.zeros(region.shape, int)
    tiles = list(region_tiles(region, 4, tile_voxels=12))
    for tile in tiles:
        count[tile] += 1
        assert all(part.start % 4 == 0 and part.stop - part.start <= 12 + 4 for part in tile)
    assert (count[region] == 1).all()
    assert count.max() == 1
    assert count[30:, 20:].sum() == 0
    assert list(region_tiles(np.zeros((5, 5, 5), bool), 4)) == []


def test_outside_the_regions_tiles_the_maps_are_zero() -> None:
    sample = fake_sample((24, 26, 22))
    sample["region"][:, 12:] = 0  # the box of the region begins at 2, its tile at 0
    found = fake_student().maps(sample)
    assert not found["student_probability"][:, 12:].any()
    assert not found["student_features"][:, 12:].any()
    assert found["student_probability"][:, :12].all()


def test_it_is_a_volume_backbone_whose_features_are_standardised_clipped_and_lifted() -> None:
    student = fake_student()
    assert isinstance(student, VolumeBackbone)
    assert is_volume_backbone(student)
    sample = mapped(student)
    box = (slice(3, 9), slice(0, 5), slice(10, 22))
    found = student.features_of_box(sample, box)
    assert found.shape == (student.dim, 6, 5, 12)
    raw = sample["student_features"][(slice(None), *box)].float()
    torch.testing.assert_close(found[:-1], ((raw - 0.3) / 0.5).clamp(-5, 5))
    assert (found[-1] == 2.0).all()  # the root of four channels
    torch.testing.assert_close(found, student.features_of_box(sample, WHOLE)[(slice(None), *box)])
    student.std /= 1000
    assert student.features_of_box(sample, box)[:-1].abs().max() == 5


def test_with_the_lift_the_cosine_keeps_the_magnitude() -> None:
    features = torch.zeros(4, 1, 1, 2)
    features[..., 0], features[..., 1] = 0.8, 2.3  # same direction, one and four sd from the mean
    found = fake_student().features_of_box({"student_features": features.half()}, WHOLE)[:, 0, 0]
    cosine = torch.nn.functional.cosine_similarity
    assert cosine(found[:-1, 0], found[:-1, 1], dim=0) > 0.999
    assert cosine(found[:, 0], found[:, 1], dim=0) < 0.9


def test_features_without_maps_are_refused() -> None:
    with pytest.raises(ValueError, match="add the student's maps first"):
        fake_student().features_of_box(fake_sample(), WHOLE)


@pytest.mark.parametrize("what", ["weights", "mean", "std", "norm"])
def test_the_fingerprint_changes_with_whatever_changes_the_features(what: str) -> None:
    first, second = fake_student(), fake_student()
    assert first.fingerprint == second.fingerprint
    state = second.net.state_dict()
    changed = {"weights": state["answer.weight"], "norm": state["down.0.1.running_mean"]}
    {"mean": second.mean, "std": second.std, **changed}[what] += 0.1
    assert VesselStudent(second.net, second.mean, second.std).fingerprint != first.fingerprint


def test_a_saved_student_is_read_back_as_it_was(tmp_path: Path) -> None:
    student = fake_student()
    student.save(tmp_path / "own")
    student.save(tmp_path / "carded", {"trained_by": "a script"})
    again = load_student(tmp_path / "own")
    assert again.fingerprint == student.fingerprint
    assert again.card == {"by": "hand"}
    assert VesselStudent.load(tmp_path / "carded").card == {"trained_by": "a script"}
    for name, value in student.maps(fake_sample()).items():
        assert torch.equal(again.maps(fake_sample())[name], value)


@pytest.mark.parametrize(
    "damage",
    ["no card", "no json", "format", "widths", "huge widths", "no weights", "cut weights", "other weights", "nan"],
)
def test_a_damaged_student_is_refused_by_name(tmp_path: Path, damage: str) -> None:
    fake_student().save(tmp_path)
    card, weights = tmp_path / "student.json", tmp_path / "student.safetensors"
    content = json.loads(card.read_text())
    if damage == "no card":
        card.unlink()
    elif damage == "no json":
        card.write_text("{")
    elif damage == "format":
        card.write_text(json.dumps(content | {"format": "other/1"}))
    elif "widths" in damage:
        card.write_text(json.dumps(content | {"widths": [10**6, 10**6] if "huge" in damage else ["a"]}))
    elif damage == "no weights":
        weights.unlink()
    elif damage == "cut weights":
        weights.write_bytes(weights.read_bytes()[:-100])
    elif damage == "other weights":
        fake_student(seed=1).save(tmp_path / "other")
        weights.write_bytes((tmp_path / "other" / "student.safetensors").read_bytes())
    else:
        broken = fake_student()
        broken.std[0] = float("nan")
        VesselStudent(broken.net, broken.mean, broken.std).save(tmp_path)
    with pytest.raises(MedsegError, match=r"student\.(json|safetensors) must .*train the student anew"):
        VesselStudent.load(tmp_path)


def test_a_package_without_a_shipped_student_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_SHIPPED", tmp_path)
    with pytest.raises(MedsegError, match="the shipped student must lie in"):
        shipped_student()
    fake_student().save(tmp_path)
    assert load_student("shipped").fingerprint == fake_student().fingerprint
