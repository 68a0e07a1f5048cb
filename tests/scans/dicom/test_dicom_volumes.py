"""Series of slices and multi-frame objects come out where GDCM says they lie, or are refused with what is wrong."""

import logging
import zipfile
from pathlib import Path

import dicom_writing as dicom
import numpy as np
import pytest
import SimpleITK
from pydicom.uid import (
    ExplicitVRBigEndian,
    JPEG2000Lossless,
    RLELossless,
    SegmentationStorage,
)

from medseg.errors import MedsegError
from medseg.scans.arrays import read_grid
from medseg.scans.folders import find_cases
from medseg.scans.picks import Pick
from medseg.scans.readers import ScanReader, read_image, read_labels
from medseg.scans.sources import dicom_series, hash_scan, scan_files

VALUES = np.random.default_rng(0).integers(-1000, 1500, (5, 6, 7)).astype(np.int16)
LARGE = np.tile(VALUES, (1, 8, 8))
"""What JPEG 2000 can be made of."""


def by_gdcm(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """Values [i j k] and affine (RAS+) of the one series in a folder, by SimpleITK."""
    reader = SimpleITK.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(folder)))
    image = reader.Execute()
    affine = np.eye(4)
    affine[:3, :3] = np.array(image.GetDirection()).reshape(3, 3) * image.GetSpacing()
    affine[:3, 3] = image.GetOrigin()
    return SimpleITK.GetArrayFromImage(image).T, np.diag([-1, -1, 1, 1]) @ affine


@pytest.mark.parametrize("orientation", [dicom.STRAIGHT, dicom.OBLIQUE, (0, 1, 0, 0, 0, -1), (-1, 0, 0, 0, 1, 0)])
def test_a_shuffled_series_without_extensions_lies_where_gdcm_says(tmp_path: Path, orientation: tuple) -> None:
    paths = dicom.write(tmp_path, dicom.slices(VALUES, orientation=orientation, RescaleSlope=2, RescaleIntercept=-24))
    values, affine = by_gdcm(tmp_path)
    for path in (paths[0], paths[3], tmp_path):
        image = read_image(path)
        np.testing.assert_array_equal(image[0].numpy(), values)
        np.testing.assert_allclose(image.affine, affine, atol=1e-5)
    np.testing.assert_array_equal(image[0].numpy(), VALUES.transpose(2, 1, 0) * 2.0 - 24)
    assert read_grid(paths[1]).shape == (7, 6, 5)


def test_slices_given_in_falling_order_come_out_in_rising_order(tmp_path: Path) -> None:
    dicom.write(tmp_path, dicom.slices(VALUES, distance=-2.5))
    values, affine = by_gdcm(tmp_path)
    np.testing.assert_array_equal(read_image(tmp_path)[0].numpy(), values)
    np.testing.assert_allclose(read_grid(tmp_path).affine, affine, atol=1e-5)


def test_each_slice_has_its_own_scale(tmp_path: Path) -> None:
    series = dicom.slices(VALUES)
    for number, one in enumerate(series):
        one.RescaleSlope, one.RescaleIntercept = number + 1, 10 * number
    dicom.write(tmp_path, series)
    expected = VALUES * np.arange(1, 6)[:, None, None] + 10 * np.arange(5)[:, None, None]
    np.testing.assert_array_equal(read_image(tmp_path)[0].numpy(), expected.transpose(2, 1, 0))


def test_files_without_preamble_are_read_and_texts_are_not(tmp_path: Path) -> None:
    for number, one in enumerate(dicom.slices(VALUES)):
        one.preamble = None
        del one.file_meta
        one.save_as(tmp_path / f"{number}", implicit_vr=True, little_endian=True)
    (tmp_path / "notes").write_text("\x08\x00 begins like one" * 20)
    listing = find_cases(tmp_path)
    assert [case.case_id for case in listing.cases] == [tmp_path.name]
    np.testing.assert_array_equal(read_image(listing.cases[0].image)[0].numpy(), VALUES.transpose(2, 1, 0))


@pytest.mark.parametrize("syntax", [RLELossless, JPEG2000Lossless])
def test_compressed_slices_give_the_same_values(tmp_path: Path, syntax: str) -> None:
    series = dicom.slices(LARGE)
    for one in series:
        one.compress(syntax)
    dicom.write(tmp_path, series)
    np.testing.assert_array_equal(read_image(tmp_path)[0].numpy(), LARGE.transpose(2, 1, 0))


def test_big_endian_slices_give_the_same_values(tmp_path: Path) -> None:
    for number, one in enumerate(dicom.slices(VALUES)):
        one.PixelData = VALUES[number].astype(">i2").tobytes()
        one.file_meta.TransferSyntaxUID = ExplicitVRBigEndian
        one.save_as(tmp_path / f"{number}", implicit_vr=False, little_endian=False)
    np.testing.assert_array_equal(read_image(tmp_path)[0].numpy(), VALUES.transpose(2, 1, 0))


def test_twelve_bits_with_an_overlay_above_them(tmp_path: Path) -> None:
    values = np.abs(VALUES).astype(np.uint16)
    series = dicom.slices(values | 0x8000, BitsStored=12, HighBit=11)
    dicom.write(tmp_path, series)
    np.testing.assert_array_equal(read_image(tmp_path)[0].numpy(), values.transpose(2, 1, 0))


def test_low_values_shown_bright_are_turned_round_but_for_ct(tmp_path: Path) -> None:
    dicom.write(tmp_path / "mr", dicom.slices(VALUES, Modality="MR", PhotometricInterpretation="MONOCHROME1"))
    dicom.write(tmp_path / "ct", dicom.slices(VALUES, PhotometricInterpretation="MONOCHROME1"))
    np.testing.assert_array_equal(read_image(tmp_path / "mr")[0].numpy(), -1 - VALUES.transpose(2, 1, 0))
    np.testing.assert_array_equal(read_image(tmp_path / "ct")[0].numpy(), VALUES.transpose(2, 1, 0))


def test_a_missing_slice_is_refused_or_interpolated_and_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    series = dicom.slices(VALUES, orientation=dicom.OBLIQUE)
    dicom.write(tmp_path, [*series[:2], *series[3:]])
    with pytest.raises(MedsegError, match=r"1 missing slice \(between slices 2 and 3\); .*--resample"):
        read_grid(tmp_path)
    with caplog.at_level(logging.INFO, "medseg"):
        image = read_image(tmp_path, Pick(resample=True))
    assert "1 missing slice" in caplog.text and "linear interpolation" in caplog.text
    expected = VALUES.astype(float)
    expected[2] = (expected[1] + expected[3]) / 2
    np.testing.assert_allclose(image[0].numpy(), expected.transpose(2, 1, 0), atol=1e-3)
    whole = tmp_path / "whole"
    dicom.write(whole, series)
    np.testing.assert_allclose(image.affine, read_grid(whole).affine, atol=1e-5)
    assert dicom_series(tmp_path, Pick(resample=True)).is_resampled and not dicom_series(whole).is_resampled


def test_two_slice_distances_are_told(tmp_path: Path) -> None:
    series = dicom.slices(VALUES)
    for one, z in zip(series, (0, 2, 4, 7, 10), strict=True):
        one.ImagePositionPatient = [0, 0, z]
    dicom.write(tmp_path, series)
    with pytest.raises(MedsegError, match=r"slice distances of 2 x 2 mm, 2 x 3 mm; .*--resample"):
        read_image(tmp_path)
    image = read_image(tmp_path, Pick(resample=True))[0].numpy()
    assert image.shape == (7, 6, 6)
    np.testing.assert_allclose(image[..., 3], (VALUES[2] + (VALUES[3] - VALUES[2]) * (2 / 3)).T, atol=1e-3)


def test_a_gantry_tilt_is_refused_and_can_be_shifted_back(tmp_path: Path) -> None:
    values = np.full((4, 8, 8), -1000, np.int16)
    values[:, 4, 3] = 500  # a line along z, seen by slices that slide by a row each
    series = dicom.slices(values, spacing=(1, 1), distance=2)
    for number, one in enumerate(series):
        one.ImagePositionPatient = [0, number, 2 * number]
    dicom.write(tmp_path, series)
    with pytest.raises(MedsegError, match=r"gantry tilt of 26.6 degrees; .*--resample"):
        read_grid(tmp_path)
    image = read_image(tmp_path, Pick(resample=True))
    assert image.shape == (1, 8, 11, 4)
    assert [tuple(place) for place in np.argwhere(image[0].numpy() == 500)] == [(3, 4 + k, k) for k in range(4)]
    np.testing.assert_allclose(image.affine, np.diag([-1, -1, 2, 1]), atol=1e-9)


def test_a_doubled_position_is_refused_for_good(tmp_path: Path) -> None:
    series = dicom.slices(VALUES)
    series[4].ImagePositionPatient = series[3].ImagePositionPatient
    dicom.write(tmp_path, series, list("abcde"))
    for pick in (Pick(), Pick(resample=True)):
        with pytest.raises(MedsegError, match=r"1 of 4 positions more than once \(first d and e\)"):
            read_image(tmp_path, pick)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"PixelSpacing": [1, 1]}, "pixel spacings of 0.7 x 0.9 and 1 x 1 mm"),
        ({"ImageOrientationPatient": [0, 1, 0, 0, 0, -1]}, "2 orientations"),
        ({"ImageOrientationPatient": [1, 0, 0, 1, 0, 0]}, "two unit directions at a right angle"),
        ({"PixelSpacing": None}, "must say its PixelSpacing"),
        ({"Rows": 3, "PixelData": bytes(42)}, "slices of 7 x 6 and 7 x 3 pixels"),
    ],
)
def test_slices_that_differ_are_refused(tmp_path: Path, change: dict, message: str) -> None:
    series = dicom.slices(VALUES)
    for name, value in change.items():
        setattr(series[-1], name, value)
    dicom.write(tmp_path, series)
    with pytest.raises(MedsegError, match=message):
        read_image(tmp_path, Pick(resample=True))


def test_an_enhanced_object_in_any_order_and_with_two_times(tmp_path: Path) -> None:
    order = [(2, 1), (0, 0), (1, 0), (0, 1), (2, 0), (1, 1)]
    values = np.random.default_rng(1).integers(0, 4000, (6, 4, 5)).astype(np.uint16)
    (path,) = dicom.write(tmp_path, [dicom.enhanced(values, order)], ["one.dcm"])
    with pytest.raises(MedsegError, match=r"must hold one frame, got 2 \(5 x 4 x 3 x 2\); choose one with --frame N"):
        read_image(path)
    for time in (0, 1):
        wanted = np.stack([values[order.index((place, time))] for place in range(3)])
        image = read_image(path, Pick(frame=time))
        np.testing.assert_array_equal(image[0].numpy(), wanted.transpose(2, 1, 0) * 2.0 - 7)
    directions = np.array(dicom.OBLIQUE).reshape(2, 3)
    step = 3 * np.cross(*directions)
    lps = np.array([0.9 * directions[0], 0.7 * directions[1], step, [1, 2, 3]]).T
    np.testing.assert_allclose(image.affine[:3].numpy(), np.diag([-1, -1, 1]) @ lps, atol=1e-6)
    series = dicom_series(path, Pick(frame=1))
    assert series.frame_numbers == (4, 6, 1) and len(set(series.sop_instances)) == 1 and len(series.datasets()) == 1


def test_a_series_with_times_offers_its_frames(tmp_path: Path) -> None:
    common = {"SeriesInstanceUID": "1.2.3", "StudyInstanceUID": "1.2"}
    early = dicom.slices(VALUES, TemporalPositionIdentifier=1, **common)
    late = dicom.slices(VALUES + 1, TemporalPositionIdentifier=2, **common)
    dicom.write(tmp_path, [one for pair in zip(late, early, strict=True) for one in pair])
    with pytest.raises(MedsegError, match=r"must hold one frame, got 2"):
        read_image(tmp_path)
    np.testing.assert_array_equal(read_image(tmp_path, Pick(frame=1))[0].numpy(), VALUES.transpose(2, 1, 0) + 1)


def test_several_series_in_a_folder_need_a_choice(tmp_path: Path) -> None:
    folder = tmp_path / "P7"
    first = dicom.write(folder, dicom.slices(VALUES, SeriesNumber=3, SeriesDescription="native"), list("acegi"))
    dicom.write(folder, dicom.slices(VALUES + 1, SeriesNumber=13, SeriesDescription="contrast 3"), list("bdfhj"))
    with pytest.raises(MedsegError, match=r"series 3 CT native 5 slices; series 13 CT contrast 3 5 slices.*--series"):
        find_cases(tmp_path)
    for series, added in (("3", 0), ("13", 1), ("Contr", 1)):
        (case,) = find_cases(tmp_path, pick=Pick(series=series)).cases
        assert (case.case_id, case.patient) == ("P7", "P7")
        np.testing.assert_array_equal(read_image(case.image, case.pick)[0].numpy(), VALUES.transpose(2, 1, 0) + added)
    np.testing.assert_array_equal(read_image(first[2])[0].numpy(), VALUES.transpose(2, 1, 0))
    with pytest.raises(MedsegError, match="must hold the series '5'"):
        find_cases(tmp_path, pick=Pick(series="5"))
    with pytest.raises(MedsegError, match="must be of the series '13'"):
        read_image(first[0], Pick(series="13"))


def test_folders_files_and_nifti_beside_them_become_cases_and_no_header_names_them(tmp_path: Path, caplog) -> None:
    caplog.set_level(logging.DEBUG)
    dicom.write(tmp_path / "A_tof", dicom.slices(VALUES))
    dicom.write(tmp_path / "B", [*dicom.slices(VALUES), *dicom.slices(VALUES[:1], SeriesNumber=1)])
    dicom.write(tmp_path / "C", [dicom.enhanced(np.abs(VALUES[:2]).astype(np.uint16), [(0, 0), (1, 0)])], ["one.dcm"])
    seg = dicom.data_set(np.zeros((4, 4), np.uint8), SegmentationStorage)
    dicom.write(tmp_path / "D", [seg], ["seg.dcm"])
    label = SimpleITK.GetImageFromArray(np.zeros((5, 6, 7), np.uint8))
    SimpleITK.WriteImage(label, tmp_path / "A_label.nii.gz")
    SimpleITK.WriteImage(label + 3, tmp_path / "E.nii.gz")
    listing = find_cases(tmp_path)
    assert [case.case_id for case in listing.cases] == ["A", "B", "E", "one"]
    assert list(listing.labels) == ["A"] and not listing.problems
    notes = " ".join(listing.notes)
    assert "single DICOM slices beside a series" in notes and "a DICOM Segmentation: seg.dcm" in notes
    told = "\n".join([*listing.describe(), caplog.text])
    assert "Secret" not in told and "4711" not in told and "1960" not in told and "1.2.826" not in told


def test_a_zip_is_read_in_place(tmp_path: Path) -> None:
    paths = dicom.write(tmp_path / "in", dicom.slices(VALUES))
    archive = tmp_path / "out" / "study.zip"
    archive.parent.mkdir()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as packed:
        for number, path in enumerate(paths):
            packed.write(path, f"../../escape{number}" if number % 2 else f"/elsewhere/{number}")
        packed.writestr("inner.zip", b"PK\x03\x04 no archive")
    np.testing.assert_array_equal(read_image(archive)[0].numpy(), VALUES.transpose(2, 1, 0))
    np.testing.assert_allclose(read_grid(archive).affine, read_grid(paths[0]).affine)
    assert sorted(path.name for path in tmp_path.rglob("*") if path.is_file()) == [
        *sorted(p.name for p in paths),
        "study.zip",
    ]
    assert [case.case_id for case in find_cases(archive.parent).cases] == ["study"]
    assert len(dicom_series(archive).datasets(pixels=True)) == 5 and scan_files(archive) == (archive,)


def test_zips_that_cannot_be_trusted_are_refused_in_one_line(tmp_path: Path) -> None:
    archive = tmp_path / "study.zip"
    with zipfile.ZipFile(archive, "w") as packed:
        packed.writestr("a", bytes(300))
    with pytest.raises(MedsegError, match="must be a volume"):
        read_image(archive)
    content = bytearray(archive.read_bytes())
    at = content.find(b"PK\x01\x02")
    encrypted = content.copy()
    encrypted[at + 8] |= 1
    archive.write_bytes(encrypted)
    with pytest.raises(MedsegError, match="encrypted"):
        read_image(archive)
    huge = content.copy()
    huge[at + 24 : at + 28] = (0xFFFFFFF0).to_bytes(4, "little")
    archive.write_bytes(huge)
    with pytest.raises(MedsegError, match="at most 2048 MiB"):
        read_image(archive)
    archive.write_bytes(content[: len(content) // 2])
    with pytest.raises(MedsegError, match="whole zip archive"):
        read_image(archive)


def test_damaged_and_lying_files_are_refused_in_one_line(tmp_path: Path) -> None:
    (path,) = dicom.write(tmp_path, dicom.slices(VALUES[:1]), ["one.dcm"])
    whole = path.read_bytes()
    for length in (140, 300, 700, len(whole) - 40):
        path.write_bytes(whole[:length])
        with pytest.raises(MedsegError) as caught:
            read_image(path)
        assert "\n" not in str(caught.value)
    (path,) = dicom.write(tmp_path, dicom.slices(VALUES[:1], Rows=60000, Columns=60000), ["huge.dcm"])
    with pytest.raises(MedsegError, match="its header claims"):
        read_image(path)
    compressed = dicom.slices(LARGE[:1])[0]
    compressed.compress(JPEG2000Lossless)
    at = compressed.PixelData.find(b"\xff\x4f\xff\x51")
    compressed.PixelData = compressed.PixelData[: at + 8] + (60000).to_bytes(4, "big") + compressed.PixelData[at + 12 :]
    (path,) = dicom.write(tmp_path, [compressed], ["j2k.dcm"])
    with pytest.raises(MedsegError, match="compressed frames of 48 x 56 pixels, got 48 x 60000"):
        read_image(path)


def test_hashes_know_neither_names_nor_order(tmp_path: Path) -> None:
    series = dicom.slices(VALUES)
    one, other = dicom.write(tmp_path / "one", series), dicom.write(tmp_path / "other", series, list("zyxwv"))
    assert hash_scan(one[2]) == hash_scan(other[0]) and len(scan_files(one[2])) == 5
    assert scan_files(one[2])[0] == one[2]
    content = bytearray(other[1].read_bytes())
    content[-1] ^= 1
    other[1].write_bytes(content)
    assert hash_scan(one[2]) != hash_scan(other[0])
    found = dicom_series(one[4])
    assert [path.name for path in found.files] == [path.name for path in one]
    assert [set_.SOPInstanceUID for set_ in found.datasets()] == [one.SOPInstanceUID for one in series]


def test_a_series_of_whole_numbers_is_a_label_and_the_monai_reader_takes_it(tmp_path: Path) -> None:
    dicom.write(tmp_path, dicom.slices((VALUES > 0).astype(np.int16) * 2))
    assert read_labels(tmp_path).unique().tolist() == [0, 2]
    reader = ScanReader()
    assert reader.verify_suffix(str(tmp_path))
    assert reader.get_data(reader.read(str(tmp_path)))[0].shape == (7, 6, 5)
