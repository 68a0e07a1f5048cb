"""What is found out about a file, and about a label with its image."""

from __future__ import annotations

import logging
import pickle
from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK
from PIL import Image

from medseg.errors import MedsegError
from medseg.scans.check import check_pair, check_scan, scan_facts
from medseg.scans.contents import content_of
from medseg.scans.picks import WHOLE, Pick

_AFFINE = np.array([[-0.5, 0, 0, 10], [0, 0.6, 0, -20], [0, 0, 2, 5], [0, 0, 0, 1]])
_VALUES = np.arange(4 * 5 * 6, dtype=np.int16).reshape(4, 5, 6) - 7


def _save(path: Path, values: np.ndarray = _VALUES, affine: np.ndarray = _AFFINE) -> Path:
    nibabel.save(nibabel.Nifti1Image(values, affine), path)
    return path


def _label(path: Path, affine: np.ndarray = _AFFINE, value: float = 1, dtype: str = "u1") -> Path:
    values = np.zeros(_VALUES.shape, dtype)
    values[1:3, 1:3, 1:3] = value
    return _save(path, values, affine)


def test_facts_of_a_volume(tmp_path: Path) -> None:
    facts = check_scan(_save(tmp_path / "a.nii.gz"))
    assert (facts.format, facts.shape, facts.unit, facts.orientation) == ("NIfTI-1", (4, 5, 6), "mm", "LAS")
    assert facts.spacing == pytest.approx((0.5, 0.6, 2))
    assert (facts.dtype, facts.lowest, facts.highest, facts.stored_frames) == ("int16", -7, 112, 1)
    assert facts.notes == []
    SimpleITK.WriteImage(SimpleITK.ReadImage(str(tmp_path / "a.nii.gz")), str(tmp_path / "a.nrrd"))
    assert scan_facts(tmp_path / "a.nrrd", WHOLE)["dtype"] == "16-bit signed integer"


def test_facts_of_a_picture(tmp_path: Path) -> None:
    grey = np.tile(np.arange(60, dtype=np.uint8) * 4, (20, 1))
    Image.fromarray(grey).save(tmp_path / "a.png")
    facts = check_scan(tmp_path / "a.png")
    assert (facts.format, facts.shape, facts.unit) == ("PNG", (20, 60, 1), "px")
    assert (facts.spacing, facts.orientation, facts.dtype) == (None, None, "uint8")
    assert (facts.lowest, facts.highest, facts.notes) == (0, 236, [])
    Image.fromarray(grey // 100).save(tmp_path / "label.png")
    facts = check_scan(tmp_path / "label.png")
    assert facts.is_dark and "is it a label?" in facts.notes[0]
    (tmp_path / "a.png").rename(tmp_path / "a.jpg")
    assert check_scan(tmp_path / "a.jpg").notes == ["holds PNG, which its name does not say"]


def test_frames_are_counted_and_picked(tmp_path: Path) -> None:
    path = _save(tmp_path / "a.nii", np.stack([_VALUES, _VALUES * 2], -1))
    with pytest.raises(MedsegError, match="must hold one frame, got 2"):
        check_scan(path)
    assert check_scan(path, Pick(frame=1)).highest == 224
    assert check_scan(path, Pick(frame=1)).stored_frames == 2
    frames = [Image.fromarray(np.full((8, 9), value, np.uint8)) for value in (10, 200, 90)]
    frames[0].save(tmp_path / "a.tif", save_all=True, append_images=frames[1:])
    assert check_scan(tmp_path / "a.tif").shape == (8, 9, 3)
    facts = check_scan(tmp_path / "a.tif", Pick(frame=1))
    assert (facts.shape, facts.highest, facts.stored_frames) == ((8, 9, 1), 200, 3)
    assert facts.notes == ["shows nothing: 200 in every pixel"]


def test_few_nan_are_a_note_and_what_cannot_be_used_is_refused(tmp_path: Path) -> None:
    values = np.random.default_rng(0).random((8, 8, 8), np.float32)
    values[0, 0, :3] = np.nan
    assert "has 3 voxels that are NaN" in check_scan(_save(tmp_path / "a.nii", values)).notes[0]
    np.save(tmp_path / "a.npy", values[..., 1:])
    values[1, 1, 1] = np.inf
    with pytest.raises(MedsegError, match="1 voxels that are infinite; replace them"):
        check_scan(_save(tmp_path / "a.nii", values))
    np.save(tmp_path / "a.npy", values)
    with pytest.raises(MedsegError, match="1 pixels that are infinite; replace them"):
        check_scan(tmp_path / "a.npy")
    with pytest.raises(MedsegError, match="got 5 in every voxel"):
        check_scan(_save(tmp_path / "a.nii", np.full((3, 4, 5), 5, np.int16)))


class _Touch:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.path,)


def test_a_checkpoint_is_told_by_its_content_and_never_loaded(tmp_path: Path) -> None:
    harm = tmp_path / "UNSAFE"
    for name, words in (
        ("a.ckpt", "must be a volume .* got checkpoint .pickle."),
        ("a.npy", "must be what its name says, got checkpoint .pickle."),
    ):
        (tmp_path / name).write_bytes(pickle.dumps(_Touch(harm)))
        with pytest.raises(MedsegError, match=words):
            check_scan(tmp_path / name)
    (tmp_path / "classes.yaml").write_text(f"!!python/object/apply:os.system ['touch {harm}']", encoding="utf-8")
    with pytest.raises(MedsegError, match="got text"):
        check_scan(tmp_path / "classes.yaml")
    assert not harm.exists()


def test_content_is_told_whatever_the_name_says(tmp_path: Path) -> None:
    path = tmp_path / "x"
    for content, said in {
        b"NRRD0004\n": "NRRD",
        bytes(128) + b"DICM" + bytes(9): "DICOM",
        b"\x08\x00\x05\x00CS\x0a\x00ISO_IR 100" + bytes(200): "DICOM",
        b"RIFF\x10\0\0\0AVI LIST": "AVI video",
        b"\0\0\0\x20ftypisom": "MP4 video",
        b"PK\x03\x04": "damaged zip file",
        b"\x1f\x8b\x08": "damaged gzip file",
        b"\x80\x04\x95": "checkpoint (pickle)",
        b"config: 3\n": "text",
        b"\xfe\xff\xfa\0": "unknown content",
    }.items():
        path.write_bytes(content)
        assert content_of(path) == said
    _save(tmp_path / "a.nii.gz").rename(path)
    assert content_of(path) == "NIfTI-1"


def test_a_label_on_the_grid_of_its_image_is_described(tmp_path: Path) -> None:
    image = _save(tmp_path / "a.nii")
    assert check_pair(_label(tmp_path / "l.nii"), image) == ["holds 1 in 6.67% of the image"]
    notes = check_pair(_label(tmp_path / "l.nii", value=255), image)
    assert notes == ["holds 0 and 255, read as 0 and 1", "holds 1 in 6.67% of the image"]
    assert "is empty" in check_pair(_label(tmp_path / "l.nii", value=0), image)[0]
    with pytest.raises(MedsegError, match="must mark the brain"):
        check_pair(_label(tmp_path / "l.nii", value=0), image, is_mask=True)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"value": 0.3, "dtype": "f4"}, "whole-number labels, got 8 voxels that are not, such as 0.3"),
        ({"value": 300, "dtype": "i2"}, "labels from 0 to 255, got 300"),
        ({"value": -1, "dtype": "i2"}, "labels from 0 to 255, got -1"),
        ({"affine": _AFFINE + np.outer([3, 0, -2, 0], [0, 0, 0, 1])}, "shifted by .3, 0, -2. mm"),
        ({"affine": _AFFINE * [1.2, 1.2, 1.2, 1]}, "another spacing, 0.6 x 0.72 x 2.4 mm"),
        ({"affine": np.diag([-1, 1, 1, 1]) @ _AFFINE}, "with the x axis mirrored .RAS against LAS."),
    ],
)  # fmt: skip
def test_a_label_that_does_not_fit_is_refused_in_words(tmp_path: Path, change: dict, words: str) -> None:
    with pytest.raises(MedsegError, match=words):
        check_pair(_label(tmp_path / "l.nii", **change), _save(tmp_path / "a.nii"))


def test_labels_of_pictures_and_volumes_do_not_fit_each_other(tmp_path: Path) -> None:
    image = _save(tmp_path / "a.nii")
    for name, shape in (("p.png", (9, 8)), ("q.png", (9, 7))):
        Image.fromarray(np.arange(np.prod(shape), dtype=np.uint8).reshape(shape) % 3).save(tmp_path / name)
    with pytest.raises(MedsegError, match=r"must be a volume of 4 x 5 x 6 voxels .* got a picture of 9 x 8 pixels"):
        check_pair(tmp_path / "p.png", image)
    with pytest.raises(MedsegError, match="must be a picture"):
        check_pair(image, tmp_path / "p.png")
    with pytest.raises(MedsegError, match="9 x 7 x 1, got 9 x 8 x 1"):
        check_pair(tmp_path / "p.png", tmp_path / "q.png")
    assert check_pair(tmp_path / "p.png", tmp_path / "p.png") == ["holds 1, 2 in 66.67% of the image"]


def test_listening_to_the_readers_changes_no_logging(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    log = logging.getLogger("medseg")
    before = (log.level, log.propagate, list(log.handlers))
    with pytest.raises(MedsegError):
        check_scan(_save(tmp_path / "a.nii", np.zeros((3, 3, 3), np.uint8)))
    assert (log.level, log.propagate, log.handlers) == before
