"""Folders of liver phantoms: medseg's own readers find every image, label and name in them."""

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from medseg.errors import MedsegError
from medseg.phantoms.liver_files import PLANE_MM, write_liver_phantoms
from medseg.scans.folders import find_cases, find_references
from medseg.scans.picture_files import read_frames
from medseg.scans.readers import read_image, read_labels
from medseg.scans.stacks import read_stack

SMALL = {"seed": 3, "size": "small"}


@pytest.fixture(scope="module")
def pictures(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("pictures")
    write_liver_phantoms(folder, cases=4, **SMALL)
    return folder


@pytest.fixture(scope="module")
def cines(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("cines")
    write_liver_phantoms(folder, cases=1, form="cines", frames=3, **SMALL)
    return folder


def test_the_readers_find_pictures_labels_splits_and_names(pictures):
    listing, references = find_cases(pictures), find_references(pictures)
    assert [case.case_id for case in listing.cases] == ["liver_001", "liver_002", "liver_003", "liver_004"]
    assert [case.split for case in listing.cases] == ["train", "train", "train", "val"]
    assert listing.labels == dict(references) and len(references) == 4 and not listing.problems
    assert listing.scheme is not None
    assert [name for _, name, _ in listing.scheme.classes] == ["sector tissue", "liver", "mass"]
    for case in listing.cases:
        image = read_frames(case.image).values
        label = read_labels(references[case.case_id], listing.scheme)
        assert image.shape == (1, 240, 320, 3) and label.shape == (1, 240, 320, 1)
        assert set(np.unique(label)) <= {0, 1, 2, 3} and (np.asarray(label) == 2).any()


def test_the_truth_beside_them_belongs_to_the_pictures(pictures):
    facts = json.loads((pictures / "truth/train/liver_002.json").read_text(encoding="utf-8"))
    truth = np.load(pictures / "truth/train/liver_002.npz")
    picture = read_frames(pictures / "imgs/train/liver_002.png").values[0]
    label = read_frames(pictures / "labels/train/liver_002.png", indices=True).values[0, ..., 0]
    assert truth["overlays"].shape == truth["vessels"].shape == (1, 240, 320)
    assert facts["sector"].keys() == {"apex_row", "apex_col", "near", "far", "left", "right"}
    assert not (truth["vessels"][0].astype(bool) & (label != 2)).any()
    assert not picture[(label == 0) & (truth["overlays"][0] == 0)].any()


def test_a_longer_series_starts_like_a_shorter_one(pictures, tmp_path):
    (first,) = write_liver_phantoms(tmp_path, cases=1, **SMALL)
    assert first.read_bytes() == (pictures / "imgs/train/liver_001.png").read_bytes()
    assert first.read_bytes() != (pictures / "imgs/train/liver_002.png").read_bytes()


def test_a_cine_has_a_label_for_each_frame_in_pages_and_as_a_stack(cines):
    listing = find_cases(cines)
    (case,) = listing.cases
    assert case.image.name == "liver_001.mp4" and listing.scheme is not None
    frames = read_frames(case.image).values
    labels = np.asarray(read_labels(listing.labels["liver_001"]))[0]
    assert frames.shape == (3, 240, 320, 3) and labels.shape == (240, 320, 3)
    assert np.array_equal(read_stack(cines / "truth/train/liver_001_label.nii.gz"), labels)
    # The video is compressed, but what it shows is where the labels are.
    dark = frames[(labels.transpose(2, 0, 1) == 0) & (np.load(cines / "truth/train/liver_001.npz")["overlays"] == 0)]
    assert dark.mean() < 4 < frames[labels.transpose(2, 0, 1) == 2].mean()


def test_a_volume_has_millimetres_and_lies_as_a_body_does(tmp_path):
    write_liver_phantoms(tmp_path, cases=1, form="volumes", shape=(96, 128), **SMALL)
    (case,) = find_cases(tmp_path).cases
    image, label = nib.load(case.image), nib.load(find_references(tmp_path)["liver_001"])
    facts = json.loads((tmp_path / "liver_001_facts.json").read_text(encoding="utf-8"))
    assert nib.aff2axcodes(image.affine) == ("L", "A", "S") and np.array_equal(image.affine, label.affine)
    assert np.allclose(image.header.get_zooms(), (facts["mm_per_px"], facts["mm_per_px"], PLANE_MM))
    assert read_image(case.image).shape == read_labels(tmp_path / "liver_001_label.nii.gz").shape
    # The probe is in front: the farthest front holds only its narrow end of the sector.
    widths = (np.asarray(label.dataobj) > 0).any(axis=2).sum(axis=0)
    front, back = widths[widths > 0][-5:].mean(), widths[widths > 0][:40].mean()
    assert front < back


def test_phantoms_without_a_liver_have_none_and_differ_in_kind(tmp_path):
    write_liver_phantoms(tmp_path, cases=3, without_liver=True, shape=(96, 128), **SMALL)
    scenes = {json.loads(path.read_text())["scene"] for path in (tmp_path / "truth").rglob("*.json")}
    assert scenes == {"thyroid", "muscle", "water"}
    for path in find_references(tmp_path).values():
        assert set(np.unique(read_frames(path, indices=True).values)) == {0, 1}


@pytest.mark.parametrize("wrong", [{"cases": 0}, {"cases": 1, "form": "cines", "frames": 1}])
def test_impossible_numbers_are_refused(tmp_path, wrong):
    with pytest.raises(MedsegError, match="at least"):
        write_liver_phantoms(tmp_path, seed=0, **wrong)
    assert not list(tmp_path.iterdir())
