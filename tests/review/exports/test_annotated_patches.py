from datetime import UTC, datetime

import numpy as np
import pytest

from medseg.errors import MedsegError
from medseg.naming.annotations import AnnotatedSlice, Annotation
from medseg.naming.rough_masks import NO_VESSEL, UNKNOWN, rough_labels
from medseg.review.exports.annotated_patches import patches_of
from medseg.review.exports.patch_folders import CasePatches, Patch, write_patches
from medseg.scans.folders import find_cases
from medseg.scans.grids import Grid
from medseg.scans.picture_files import read_frames

SHAPE = (20, 3, 14)


@pytest.fixture
def annotated() -> tuple[np.ndarray, np.ndarray, Annotation]:
    """Slices along the second axis; cells of 8 x 8 in 3 rows and 2 columns."""
    affine = np.array([[1, 0, 0, 0], [0, 0, 1, 0], [0, 1, 0, 0], [0, 0, 0, 1.0]])
    image = np.random.default_rng(0).normal(100, 5, SHAPE).astype(np.float32)
    image[17:19, 0, 9:12] = image[3, 1, 3] = 300
    slices = (AnnotatedSlice(0, ((2, 1),), True), AnnotatedSlice(1, ((0, 0),), False))
    annotation = Annotation(
        "a", "00", Grid("a", SHAPE, affine), 8, slices, 1.0, "Ada", datetime(2026, 1, 1, tzinfo=UTC)
    )
    return image, rough_labels(image, annotation), annotation


def test_patches_lie_where_their_names_say(annotated):
    image, labels, annotation = annotated
    patches = {patch.name: patch for patch in patches_of(image, labels, annotation)}
    assert len(patches) == 12
    cut = patches["a_slice000_row02_column01"]
    assert cut.values.shape == (8, 8)
    assert (cut.values[:4, :6] == image[16:, 0, 8:]).all()
    assert (cut.values[4:, :6] == image[19, 0, 8:]).all() and (cut.values[:4, 6:] == image[16:, 0, 13:]).all()
    expected = np.zeros((8, 8), np.uint8)
    expected[1:3, 1:4] = 1
    assert (cut.labels == expected).all()
    assert np.corrcoef(cut.shown.ravel(), cut.values.ravel())[0, 1] > 0.9
    known = {name for name, patch in patches.items() if patch.labels is not None}
    assert known == {name for name in patches if "slice000" in name} | {"a_slice001_row00_column00"}
    assert (labels[:, 2] == UNKNOWN).all() and (labels[:8, 0] == NO_VESSEL).all()


def _cases(patches: list[Patch]) -> list[CasePatches]:
    """Those of the first column as one case for training, the others as one for testing."""
    columns = [[patch for patch in patches if patch.name.endswith(f"column0{n}")] for n in (0, 1)]
    return [CasePatches(name, 8, name == "b", found) for name, found in zip("ab", columns, strict=True)]


def test_the_folders_are_read_as_what_they_are(annotated, tmp_path):
    patches = list(patches_of(*annotated))
    counts = write_patches(tmp_path / "patches", _cases(patches))
    assert counts == {"all": 12, "labelled_train": 4, "labelled_test": 3, "unlabelled_train": 5}
    folder = tmp_path / "patches"
    first = "a_slice000_row02_column01"
    assert first in (folder / "labelled_test.txt").read_text().split()
    values = read_frames(folder / f"gt/{first}.mat", indices=True).values
    by_name = {patch.name: patch for patch in patches}
    assert (values[0, :, :, 0] == by_name[first].labels).all()
    assert (read_frames(folder / f"gt_png/{first}.png").values[0, :, :, 0] == 255 * by_name[first].labels).all()
    assert (read_frames(folder / f"imgs/{first}.png").values[0, :, :, 0] == by_name[first].shown).all()
    assert not (folder / "gt/a_slice001_row01_column00.mat").exists()
    listing = find_cases(folder)
    assert (len(listing.cases), len(listing.labels)) == (12, 7) and not listing.problems
    assert {case.case_id for case in listing.cases if case.split == "test"} == {
        f"a_slice000_row{row:02d}_column01" for row in range(3)
    }


def test_stacks_hold_the_patches_in_the_order_of_their_names(annotated, tmp_path):
    patches = list(patches_of(*annotated))
    write_patches(tmp_path / "patches", _cases(patches))
    stacks = {path.stem: np.load(path) for path in (tmp_path / "patches/npy").iterdir()}
    by_name = {patch.name: patch for patch in patches}
    with_vessel = {"a": "a_slice001_row00_column00", "b": "a_slice000_row02_column01"}
    for case, name in with_vessel.items():
        assert (stacks[f"{case}_8_img"] == by_name[name].values[None]).all()
        assert (stacks[f"{case}_8_label"] == by_name[name].labels[None]).all()
    empty = [by_name[f"a_slice000_row0{row}_column00"].values for row in range(3)]
    assert (stacks["a_8_empty"] == np.stack(empty)).all()
    assert {name: len(stack) for name, stack in stacks.items()} == {
        "a_8_img": 1,
        "a_8_label": 1,
        "a_8_empty": 3,
        "a_8_unlabelled": 2,
        "b_8_img": 1,
        "b_8_label": 1,
        "b_8_empty": 2,
        "b_8_unlabelled": 3,
    }


def test_equal_patches_are_equal_files(annotated, tmp_path):
    for folder in ("one", "two"):
        write_patches(tmp_path / folder, _cases(list(patches_of(*annotated))))
    files = [path.relative_to(tmp_path / "one") for path in (tmp_path / "one").rglob("*") if path.is_file()]
    assert len(files) == 12 + 7 + 7 + 8 + 4 + 1
    assert all((tmp_path / "one" / path).read_bytes() == (tmp_path / "two" / path).read_bytes() for path in files)


def test_patches_take_the_place_of_earlier_ones_but_not_of_other_files(annotated, tmp_path):
    patches = list(patches_of(*annotated))
    write_patches(tmp_path / "patches", _cases(patches))
    write_patches(tmp_path / "patches", _cases(patches[:2]))
    assert len(list((tmp_path / "patches/imgs").iterdir())) == 2
    (tmp_path / "patches/mine.txt").write_text("mine")
    with pytest.raises(MedsegError, match=r"got mine\.txt, which medseg did not write"):
        write_patches(tmp_path / "patches", _cases(patches))
