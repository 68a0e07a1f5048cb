"""Pictures and videos found in folders; names decide, so files are empty where nothing has to be opened."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
import scipy.io
from PIL import Image

from medseg.errors import MedsegError
from medseg.scans.cases import Listing
from medseg.scans.folders import find_cases, find_references
from medseg.scans.picks import Pick
from medseg.scans.readers import read_labels


def _touch(folder: Path, *names: str) -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def _write(path: Path, values: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values).save(path)


def _photo(path: Path) -> None:
    _write(path, np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8))


def _found(source: Path) -> tuple[list[str], dict[str, str], Listing]:
    listing = find_cases(source)
    labels = {name: path.relative_to(source).as_posix() for name, path in listing.labels.items()}
    return [case.case_id for case in listing.cases], labels, listing


def test_bare_folder_takes_odd_names_and_nested_folders_and_leaves_out_what_is_no_picture(tmp_path: Path) -> None:
    _touch(tmp_path, "my dog.png", "Bär #2.JPG", "more/deep/x.tif", "film.mp4", "Thumbs.db", ".hidden.png", "notes.txt")
    _touch(tmp_path, "__MACOSX/my dog.png", "values.npy", "values2.mat")
    ids, labels, listing = _found(tmp_path)
    assert ids == ["Bär #2", "film", "my dog", "values", "values2", "x"]
    assert labels == {}
    assert [case.patient for case in listing.cases] == ids
    assert listing.notes == ("layout: bare folder of images", "ignored, not an image (.txt): notes.txt")


def test_pictures_beside_volumes_are_no_cases_and_that_is_said(tmp_path: Path) -> None:
    _touch(tmp_path, "002.nii.gz", "shot.png", "002_label.png")
    ids, labels, listing = _found(tmp_path)
    assert (ids, labels) == (["002"], {})
    assert listing.notes == ("ignored, a picture beside volumes: 002_label.png, shot.png",)


def test_standard_layout_wins_over_a_volume_elsewhere(tmp_path: Path) -> None:
    _touch(tmp_path, "imgs/train/a.png", "imgs/val/b.png", "stack.nii.gz")
    ids, _, listing = _found(tmp_path)
    assert ids == ["a", "b"]
    assert "ignored, a volume beside pictures: stack.nii.gz" in listing.notes


def test_volumes_in_an_image_folder_stay_volumes(tmp_path: Path) -> None:
    _touch(tmp_path, "images/train/a.nii.gz", "images/train/a.png", "images/val/b.nii.gz")
    assert [case.image.name for case in find_cases(tmp_path).cases] == ["a.nii.gz", "b.nii.gz"]


def test_labels_pair_by_name_and_folder_never_by_order(tmp_path: Path) -> None:
    _touch(tmp_path, "imgs/train/a.jpg", "imgs/train/B_img.jpg", "imgs/val/c.jpg", "imgs/val/d.jpg")
    _touch(tmp_path, "labels/train/b.png", "labels/val/c_label.png", "labels/val/e.png", "labels/train/d.png")
    ids, labels, listing = _found(tmp_path)
    assert ids == ["B", "a", "c", "d"]
    assert labels == {"B": "labels/train/b.png", "c": "labels/val/c_label.png"}  # d: image in val, label in train
    assert [case.split for case in listing.cases] == ["train", "train", "val", "val"]
    assert listing.notes[0] == "layout: image folder"
    assert "label without a scan: d.png, e.png" in listing.notes
    assert "no label for a, d" in listing.notes


def test_frames_of_one_cine_never_get_the_label_of_another(tmp_path: Path) -> None:
    _touch(tmp_path, "cine_1/f_0001.png", "cine_1/f_0002.png", "cine_2/f_0000.png", "labels/cine_2/f_0002.png")
    _touch(tmp_path, "labels/cine_2/f_0000.png")
    ids, labels, listing = _found(tmp_path)
    assert ids == ["f_0000", "f_0001", "f_0002"]
    assert [case.patient for case in listing.cases] == ["cine_2", "cine_1", "cine_1"]
    assert labels == {"f_0000": "labels/cine_2/f_0000.png"}
    assert listing.notes[0] == "layout: folders of images, one a patient"


def test_label_folder_beside_another_folder_pairs(tmp_path: Path) -> None:
    _touch(tmp_path, "photos/a.jpg", "photos/b.jpg", "labels/a.png")
    assert _found(tmp_path)[1] == {"a": "labels/a.png"}


@pytest.mark.parametrize("folder", ["masks", "true_masks", "annotations", "label", "gt", "Ground_Truth"])
def test_masks_of_pictures_are_labels(tmp_path: Path, folder: str) -> None:
    _touch(tmp_path, "images/a.png", f"{folder}/a.png", "images/b.png", "images/b_mask.png")
    _, labels, listing = _found(tmp_path)
    assert labels == {"a": f"{folder}/a.png", "b": "images/b_mask.png"}
    assert all(case.mask is None for case in listing.cases)


def test_two_photographs_of_one_stem_are_an_error_of_that_case(tmp_path: Path) -> None:
    _photo(tmp_path / "a.png")
    _photo(tmp_path / "a.jpg")
    _photo(tmp_path / "b.png")
    ids, labels, listing = _found(tmp_path)
    assert (ids, labels) == (["b"], {})
    [(name, problem)] = listing.problems
    assert name == "a" and "must have one image, got 2" in problem and "a.png" in problem and "a.jpg" in problem


def test_png_of_few_colours_beside_a_jpeg_is_its_label(tmp_path: Path) -> None:
    _photo(tmp_path / "a.jpg")
    _write(tmp_path / "a.png", np.arange(64, dtype=np.uint8).reshape(8, 8))
    _photo(tmp_path / "b.jpg")
    _write(tmp_path / "b.png", np.arange(65, dtype=np.uint8).reshape(5, 13))
    _, labels, listing = _found(tmp_path)
    assert labels == {"a": "a.png"}
    assert [name for name, _ in listing.problems] == ["b"]
    assert any("beside a JPEG, taken as its label: a.png" in note for note in listing.notes)
    assert find_cases(tmp_path / "a.jpg").labels == {"a": tmp_path / "a.png"}
    assert find_cases(tmp_path / "a.png").labels == {}


def test_damaged_png_beside_a_jpeg_is_no_label(tmp_path: Path) -> None:
    _touch(tmp_path, "a.jpg", "a.png", "b.jpg")
    assert [name for name, _ in find_cases(tmp_path).problems] == ["a"]


def test_one_picture_or_video_is_a_case(tmp_path: Path) -> None:
    _touch(tmp_path, "a_0000.png", "a_0000_label.png", "film.MP4", "scan.nii")
    listing = find_cases(tmp_path / "a_0000.png")
    assert [case.case_id for case in listing.cases] == ["a_0000"]
    assert listing.labels == {"a_0000": tmp_path / "a_0000_label.png"}
    assert find_cases(tmp_path / "film.MP4", pick=Pick(frame=3)).cases[0].pick.frame == 3
    assert find_references(tmp_path / "a_0000_label.png") == {"a_0000": tmp_path / "a_0000_label.png"}


def test_numbers_of_frames_are_kept_where_only_the_first_has_a_label(tmp_path: Path) -> None:
    _touch(tmp_path, "imgs/f_0000.png", "imgs/f_0001.png", "labels/f_0000.png")
    assert _found(tmp_path)[:2] == (["f_0000", "f_0001"], {"f_0000": "labels/f_0000.png"})


def test_nnunet_pictures_lose_the_number_of_their_channel(tmp_path: Path) -> None:
    _touch(tmp_path, "imagesTr/x_0000.png", "imagesTs/y_0000.png", "labelsTr/x.png")
    assert _found(tmp_path)[:2] == (["x", "y"], {"x": "labelsTr/x.png"})


def test_results_and_runs_of_medseg_are_never_pictures(tmp_path: Path) -> None:
    kinds = ("seg", "colour", "overlay", "uncertainty", "region")
    _touch(tmp_path, "a.jpg", "out/a_overlay.png", "out/a_frames/0001_seg.png", "run/plots/loss.png", "mine/run.yaml")
    _touch(tmp_path, *(f"a_{kind}.png" for kind in kinds), "comparison/a_kmeans.png", "mine/b.png")
    manifest = {"run_hash": "r", "source_sha256": "s", "files": {"a_frames/0001_seg.png": "h"}}
    for folder in (tmp_path, tmp_path / "out"):
        (folder / "a_manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    (tmp_path / "run/run.yaml").write_text("started: now\nconfig_hash: 1\n", encoding="utf-8")
    (tmp_path / "classes.yaml").write_text("not the user's", encoding="utf-8")
    ids, labels, listing = _found(tmp_path)
    assert (ids, labels) == (["a", "b"], {})
    assert "run holds a run of medseg and is skipped" in listing.notes
    assert "out holds results of medseg and is skipped" in listing.notes


def test_csv_names_pictures_and_its_patients_win(tmp_path: Path) -> None:
    _touch(tmp_path, "a.png", "b.png", "a_l.png")
    (tmp_path / "cases.csv").write_text("image,patient,label\na.png,anna,a_l.png\nb.png,anna,\n", encoding="utf-8")
    listing = find_cases(tmp_path / "cases.csv")
    assert [(case.case_id, case.patient) for case in listing.cases] == [("a", "anna"), ("b", "anna")]
    assert listing.labels == {"a": tmp_path / "a_l.png"}


def _potsdam(folder: Path, key: str, count: int = 4) -> None:
    for n in range(count):
        _touch(folder, f"imgs/t{n}.png")
        if n != 1:
            (folder / "gt").mkdir(exist_ok=True)
            scipy.io.savemat(folder / f"gt/t{n}.mat", {key: np.full((2, 2), n, np.uint8)})


def test_lists_of_potsdam_give_the_splits(tmp_path: Path) -> None:
    _potsdam(tmp_path, "imageData")
    for name, content in (
        ("all", "t0\nt1.png\nt2\nt9\n"),
        ("labelled_train", "t0.mat\r\n"),
        ("unlabelled_train", "T1"),
    ):
        (tmp_path / f"{name}.txt").write_text(content, encoding="utf-8")
    (tmp_path / "labelled_test.txt").write_text("imgs/t2.png\n\n", encoding="utf-8")
    ids, labels, listing = _found(tmp_path)
    assert ids == ["t0", "t1", "t2"]
    assert [case.split for case in listing.cases] == ["train", "train", "test"]
    assert labels == {"t0": "gt/t0.mat", "t2": "gt/t2.mat"}
    assert listing.notes == (
        "layout: Potsdam-style",
        "ignored, not in all.txt: t3",
        "named in all.txt without an image: t9",
        "no label for t1",
    )
    assert listing.scheme is None


def test_potsdam_without_all_leaves_out_what_no_list_names(tmp_path: Path) -> None:
    _potsdam(tmp_path, "imageData")
    (tmp_path / "labelled_train.txt").write_text("t0\nt1\n", encoding="utf-8")
    (tmp_path / "labelled_test.txt").write_text("t2\nt1\n", encoding="utf-8")
    ids, _, listing = _found(tmp_path)
    assert ids == ["t0", "t2"]
    assert "ignored, not in labelled_train.txt or labelled_test.txt: t3" in listing.notes
    assert "t1 must be for training or for testing" in listing.problems[0][1]


def test_potsdam_without_lists_takes_all(tmp_path: Path) -> None:
    _potsdam(tmp_path, "imageData")
    ids, _, listing = _found(tmp_path)
    assert ids == ["t0", "t1", "t2", "t3"]
    assert {case.split for case in listing.cases} == {None}


def test_array_called_gt_tells_the_potsdam_of_stego(tmp_path: Path) -> None:
    _potsdam(tmp_path, "gt", count=6)
    listing = find_cases(tmp_path)
    assert "layout: Potsdam" in listing.notes
    found = {name: int(read_labels(path, listing.scheme)[0, 0, 0, 0]) for name, path in listing.labels.items()}
    assert found == {"t0": 1, "t2": 3, "t3": 3, "t4": 1, "t5": 2}
    assert find_references(tmp_path, scheme="potsdam6").scheme.name == "potsdam6"  # type: ignore[union-attr]


def _coco(folder: Path) -> None:
    _touch(folder, *(f"images/{split}2017/{n}.jpg" for split, n in (("train", 1), ("train", 2), ("val", 3))))
    _touch(folder, "annotations/train2017/1.png", "annotations/val2017/3.png")


def test_curated_lists_pick_the_images_of_cocostuff(tmp_path: Path) -> None:
    _coco(tmp_path)
    for name, content in (("Coco164kFull_Stuff_Coarse", "1\n7\n"), ("Coco164kFew_Stuff_6", "2\n"), ("other", "1\n")):
        _touch(tmp_path, f"curated/train2017/{name}.txt")
        (tmp_path / f"curated/train2017/{name}.txt").write_text(content, encoding="utf-8")
    ids, labels, listing = _found(tmp_path)
    assert ids == ["1", "3"]
    assert labels == {"1": "annotations/train2017/1.png", "3": "annotations/val2017/3.png"}
    assert [case.split for case in listing.cases] == ["train", "val"]
    assert listing.notes == (
        "layout: CocoStuff",
        "train: 1 of 2 images are in Coco164kFull_Stuff_Coarse.txt",
        "named in Coco164kFull_Stuff_Coarse.txt without an image: 7",
    )
    assert [case.case_id for case in find_cases(tmp_path, scheme="cocostuff3").cases] == ["2", "3"]
    notes = find_cases(tmp_path, scheme="cocostuff15").notes
    assert any(note.startswith("none of the lists of train2017 is for cocostuff15") for note in notes)


def test_cityscapes_needs_only_its_label_ids(tmp_path: Path) -> None:
    for kind in ("color", "instanceIds", "labelIds", "labelTrainIds"):
        _touch(tmp_path, f"gtFine/train/ulm/ulm_1_gtFine_{kind}.png")
    _touch(tmp_path, "leftImg8bit/train/ulm/ulm_1_leftImg8bit.png", "leftImg8bit/val/bonn/bonn_1_leftImg8bit.png")
    _touch(tmp_path, "stray.png")
    ids, labels, listing = _found(tmp_path)
    assert ids == ["bonn_1", "ulm_1"]
    assert labels == {"ulm_1": "gtFine/train/ulm/ulm_1_gtFine_labelIds.png"}
    assert [case.patient for case in listing.cases] == ids
    assert "ignored, outside the layout: stray.png" in listing.notes


def test_cropped_set_is_found_from_each_of_its_folders(tmp_path: Path) -> None:
    crops = tmp_path / "cropped" / "cocostuff27_five_crop_0.5"
    _touch(crops, "img/train/0.jpg", "img/val/0.jpg", "img/val/1.jpg")
    _write(crops / "label/val/0.png", np.array([[0, 27], [1, 10]], np.uint8))
    for source in (tmp_path, crops.parent, crops):
        ids, labels, listing = _found(source)
        assert ids == ["1", "train_0", "val_0"]
        assert list(labels) == ["val_0"]
        labels_read = read_labels(listing.labels["val_0"], listing.scheme)
        assert labels_read[0, :, :, 0].tolist() == [[-1, 27], [1, 10]]
    _touch(crops.parent, "other_random_crop_0.3/img/train/0.jpg")
    with pytest.raises(MedsegError, match=r"must hold one cropped set, got 2 \(cocostuff27_five_crop_0.5, other"):
        find_cases(tmp_path)


def test_crops_of_an_unknown_set_hold_plain_values(tmp_path: Path) -> None:
    _touch(tmp_path, "liver_five_crop_0.5/img/train/0.jpg", "liver_five_crop_0.5/label/train/0.png")
    listing = find_cases(tmp_path / "liver_five_crop_0.5")
    assert "layout: cropped set of liver" in listing.notes
    assert listing.scheme is None


def test_classes_beside_the_images_are_the_scheme_unless_another_is_named(tmp_path: Path) -> None:
    _touch(tmp_path, "a.jpg", "a_label.png")
    text = 'classes:\n  - {value: 1, name: sky, colour: "#0000ff"}\n'
    (tmp_path / "classes.yaml").write_text(text, encoding="utf-8")
    for source in (tmp_path, tmp_path / "a.jpg"):
        listing = find_cases(source)
        assert listing.scheme is not None and listing.scheme.classes == ((1, "sky", "#0000ff"),)
        assert not any("classes.yaml" in note for note in listing.notes)
        assert "  labels are read as classes.yaml: 1 class" in listing.describe()
    assert find_references(tmp_path).scheme == find_references(tmp_path / "a_label.png").scheme == listing.scheme
    assert find_cases(tmp_path, scheme="suim").scheme.name == "suim"  # type: ignore[union-attr]
    assert find_cases(tmp_path, scheme=tmp_path / "classes.yaml").scheme == listing.scheme


def test_sources_whose_labels_mean_different_things_are_not_mixed(tmp_path: Path) -> None:
    _touch(tmp_path, "city/leftImg8bit/train/ulm/ulm_1_leftImg8bit.png", "coco/images/train2017/1.jpg")
    with pytest.raises(MedsegError, match="got cocostuff27 after cityscapes"):
        find_cases([tmp_path / "city", tmp_path / "coco"])
    assert len(find_cases([tmp_path / "city", tmp_path / "coco"], scheme="suim").cases) == 2


def test_error_lines_tell_the_kinds_of_files_and_stay_short(tmp_path: Path) -> None:
    (tmp_path / "x.docx").touch()
    for source in (tmp_path, tmp_path / "x.docx"):
        with pytest.raises(MedsegError, match=r"a picture \(\.png .*\) or a video \(\.mp4") as caught:
            find_cases(source)
        assert len(str(caught.value)) - len(os.fspath(source)) < 300
