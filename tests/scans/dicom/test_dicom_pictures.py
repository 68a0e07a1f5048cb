"""DICOM without a place in the patient is a picture: its frames, depth, colours and pixel size."""

from pathlib import Path

import dicom_writing as dicom
import numpy as np
import pytest
from pydicom.dataset import Dataset
from pydicom.pixels import convert_color_space
from pydicom.sequence import Sequence
from pydicom.uid import JPEG2000Lossless, RLELossless

from medseg.errors import MedsegError
from medseg.scans.arrays import read_grid
from medseg.scans.folders import find_cases
from medseg.scans.names import is_picture
from medseg.scans.picks import Pick
from medseg.scans.pictures import iterate_frames
from medseg.scans.pixel_sizes import pixel_size_mm
from medseg.scans.readers import read_picture

COLOURS = np.random.default_rng(0).integers(0, 256, (3, 40, 48, 3)).astype(np.uint8)


def _write(folder: Path, made: object) -> Path:
    return dicom.write(folder, [made], ["US0001"])[0]  # type: ignore[list-item]


@pytest.mark.parametrize("syntax", [None, RLELossless, JPEG2000Lossless])
def test_a_cine_in_colour(tmp_path: Path, syntax: str | None) -> None:
    made = dicom.ultrasound(COLOURS)
    if syntax:
        made.compress(syntax)
    path = _write(tmp_path, made)
    assert is_picture(path) and read_grid(path).shape == (40, 48, 3)
    picture = read_picture(path)
    np.testing.assert_allclose(picture.numpy(), COLOURS.transpose(3, 1, 2, 0) / np.float32(255), atol=1e-7)
    for number, frame in enumerate(iterate_frames(path)):
        np.testing.assert_array_equal(frame, picture[..., number].permute(1, 2, 0).numpy())
    np.testing.assert_array_equal(read_picture(path, Pick(frame=2, channel=1))[0, ..., 0], picture[1, ..., 2])
    with pytest.raises(MedsegError, match=r"must have channel 3 \(0 is the first\), got 3"):
        read_picture(path, Pick(channel=3))
    with pytest.raises(MedsegError, match="must have frame 3"):
        read_picture(path, Pick(frame=3))


def test_luminance_and_chrominance_become_colours(tmp_path: Path) -> None:
    brightness = convert_color_space(COLOURS[0], "RGB", "YBR_FULL")
    path = _write(tmp_path, dicom.ultrasound(brightness, PhotometricInterpretation="YBR_FULL"))
    np.testing.assert_allclose(read_picture(path)[..., 0].permute(1, 2, 0).numpy() * 255, COLOURS[0], atol=2)


def test_grey_is_stretched_by_its_bits_and_never_windowed(tmp_path: Path) -> None:
    values = np.array([[0, 1, 2048], [4094, 4095, 7]], np.uint16)
    made = dicom.ultrasound(values, BitsStored=12, HighBit=11, WindowCenter=100, WindowWidth=10)
    for element, kind, value in ((0x10, "US", 2), (0x11, "US", 3), (0x40, "CS", "G"), (0x100, "US", 1)):
        made.add_new((0x6000, element), kind, value)
    made.add_new((0x6000, 0x3000), "OW", b"\xff\xff")
    picture = read_picture(_write(tmp_path, made))[0, ..., 0].numpy()
    np.testing.assert_allclose(picture, values / 4095, atol=1e-5)
    made.PhotometricInterpretation = "MONOCHROME1"
    np.testing.assert_allclose(read_picture(_write(tmp_path / "1", made))[0, ..., 0], 1 - values / 4095, atol=1e-5)
    signed = dicom.ultrasound(np.array([[-128, 127, 0]], np.int8))
    np.testing.assert_allclose(read_picture(_write(tmp_path / "2", signed))[0, 0, :, 0], [0, 1, 128 / 255], atol=1e-6)


def test_a_palette_is_applied(tmp_path: Path) -> None:
    indices = np.array([[0, 1], [2, 3]], np.uint8)
    made = dicom.ultrasound(indices, PhotometricInterpretation="PALETTE COLOR")
    table = np.random.default_rng(3).integers(0, 65536, (3, 256)).astype(np.uint16)
    for colour, values in zip(("Red", "Green", "Blue"), table, strict=True):
        setattr(made, f"{colour}PaletteColorLookupTableDescriptor", [256, 0, 16])
        setattr(made, f"{colour}PaletteColorLookupTableData", values.tobytes())
    picture = read_picture(_write(tmp_path, made))[..., 0].numpy()
    np.testing.assert_allclose(picture, table[:, indices] / 65535, atol=1e-6)


def test_the_pixel_size_is_that_of_the_largest_region_of_tissue(tmp_path: Path) -> None:
    def region(data_type: int, unit: int, delta: float, right: int) -> Dataset:
        made = Dataset()
        made.RegionSpatialFormat, made.RegionDataType = 1, data_type
        made.PhysicalUnitsXDirection = made.PhysicalUnitsYDirection = unit
        made.PhysicalDeltaX, made.PhysicalDeltaY = delta, -2 * delta
        made.RegionLocationMinX0, made.RegionLocationMinY0 = 0, 0
        made.RegionLocationMaxX1, made.RegionLocationMaxY1 = right, 3
        return made

    made = dicom.ultrasound(COLOURS)
    made.SequenceOfUltrasoundRegions = Sequence(
        [region(1, 3, 0.01, 2), region(1, 3, 0.02, 5), region(2, 3, 0.5, 6), region(1, 4, 0.7, 6)]
    )
    made.PixelSpacing = [9, 9]
    path = _write(tmp_path, made)
    assert pixel_size_mm(path) == pytest.approx((0.4, 0.2))
    del made.SequenceOfUltrasoundRegions
    assert pixel_size_mm(_write(tmp_path / "spacing", made)) == (9, 9)
    del made.PixelSpacing
    assert pixel_size_mm(_write(tmp_path / "none", made)) is None


def test_each_picture_of_an_exam_is_a_case_called_after_its_file(tmp_path: Path) -> None:
    exam = [dicom.ultrasound(COLOURS[n], SeriesInstanceUID="1.2.3") for n in range(3)]
    dicom.write(tmp_path, exam, ["IM_1", "IM_2", "IM_3.dcm"])
    listing = find_cases(tmp_path)
    assert [case.case_id for case in listing.cases] == ["IM_1", "IM_2", "IM_3"]
    assert not listing.problems
