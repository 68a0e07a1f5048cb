"""DICOM segmentations: positions, values, references and what they tell about a patient."""

from __future__ import annotations

import itertools
import logging
import sys
from pathlib import Path

import nibabel
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from jaxtyping import Float, UInt8
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid
from scipy.spatial import cKDTree

from medseg.errors import MedsegError
from medseg.review.exports.dicom_seg import RESEARCH_ONLY, frames_of, seg_of, write_dicom_seg
from medseg.scans.arrays import read_grid
from medseg.scans.dicom.stacks import Slice
from medseg.scans.dicom.volumes import open_volume
from medseg.scans.grids import Grid
from medseg.scans.masks import write_labels
from medseg.scans.picks import Pick
from medseg.scans.readers import read_image, read_labels

COLUMNS, ROWS, SLICES = 8, 5, 4  # ITK misreads the last bits of frames whose pixels do not fill whole bytes
SPACING = (0.75, 0.5)  # row to row, column to column
STEP = 2.25
LPS = np.array([-1.0, -1.0, 1.0])
VESSEL = {"value": 1, "name": "vessel", "colour": "#e6194b", "clusters": [3]}
LIVER = {
    "value": 2,
    "name": "organ of interest",
    "colour": "#3cb44b",
    "code": {"scheme": "SCT", "value": "10200004", "meaning": "Liver"},
}
MASS = {"value": 5, "name": "mass"}
CLASSES = [VESSEL, LIVER, MASS]

_TURN, _TILT = np.deg2rad(25), np.deg2rad(-35)
_ABOUT_Z = np.array([[np.cos(_TURN), -np.sin(_TURN), 0], [np.sin(_TURN), np.cos(_TURN), 0], [0, 0, 1]])
_ABOUT_X = np.array([[1, 0, 0], [0, np.cos(_TILT), -np.sin(_TILT)], [0, np.sin(_TILT), np.cos(_TILT)]])
ORIENTATIONS = {  # direction of growing columns, of growing rows (LPS)
    "axial": ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0)),
    "sagittal": ((0.0, 1.0, 0.0), (0.0, 0.0, -1.0)),
    "coronal": ((1.0, 0.0, 0.0), (0.0, 0.0, -1.0)),
    "oblique": (tuple((_ABOUT_Z @ _ABOUT_X)[:, 0]), tuple((_ABOUT_Z @ _ABOUT_X)[:, 1])),
}


def series(orientation: str, *, slices: int = SLICES) -> list[Dataset]:
    """Single-frame MR images of one series in the order of growing distance along the normal, with a full identity."""
    across, down = np.array(ORIENTATIONS[orientation])
    study, own, frame = generate_uid(), generate_uid(), generate_uid()
    images = []
    for number in range(slices):
        image = Dataset()
        image.SOPClassUID, image.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.4", generate_uid()
        image.StudyInstanceUID, image.SeriesInstanceUID, image.FrameOfReferenceUID = study, own, frame
        image.Modality, image.SeriesNumber, image.InstanceNumber = "MR", 3, number + 1
        image.SpecificCharacterSet = "ISO_IR 100"
        image.PatientName, image.PatientID, image.PatientBirthDate = "Müller^Jörg", "HOSP-4711", "19500203"
        image.PatientSex, image.PatientAge, image.PatientAddress = "M", "071Y", "Long Street 5"
        image.StudyDate, image.StudyTime, image.StudyID = "20210405", "101112", "S-99"
        image.AccessionNumber, image.ReferringPhysicianName = "ACC-77", "House^Gregory"
        image.InstitutionName, image.InstitutionAddress, image.StationName = "Clinic of X", "X Town", "MRC-STATION"
        image.Manufacturer, image.DeviceSerialNumber = "ScannerMaker", "SER-555"
        image.StudyDescription, image.SeriesDescription = "Head of Mr Müller", "TOF Müller"
        image.OperatorsName, image.PatientComments = "Op^Erator", "a remark"
        image.ImageOrientationPatient = [f"{value:.12g}" for value in (*across, *down)]
        position = np.array([-31.5, 17.25, 40.0]) + number * STEP * np.cross(across, down)
        image.ImagePositionPatient = [f"{value:.12g}" for value in position]
        image.PixelSpacing, image.SliceThickness = list(SPACING), 2
        image.Rows, image.Columns = ROWS, COLUMNS
        image.BitsAllocated, image.BitsStored, image.HighBit, image.PixelRepresentation = 16, 16, 15, 0
        image.SamplesPerPixel, image.PhotometricInterpretation = 1, "MONOCHROME2"
        pixels = np.arange(ROWS * COLUMNS, dtype=np.uint16) + 100 * number
        image.PixelData = pixels.tobytes()
        image.file_meta = FileMetaDataset()
        image.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        images.append(image)
    return images


def grid_of_series(images: list[Dataset], *, permutation=(0, 1, 2), flipped=(False, False, False)) -> Grid:
    """The grid i = column, j = row, k = slice, or with its axes exchanged and turned round, from the standard."""
    first, last = images[0], images[-1]
    orientation = np.array(first.ImageOrientationPatient, dtype=float)
    origin = np.array(first.ImagePositionPatient, dtype=float)
    affine = np.eye(4)
    affine[:3, 0] = LPS * orientation[:3] * float(first.PixelSpacing[1])
    affine[:3, 1] = LPS * orientation[3:] * float(first.PixelSpacing[0])
    step = (np.array(last.ImagePositionPatient, dtype=float) - origin) / (len(images) - 1)
    affine[:3, 2], affine[:3, 3] = LPS * step, LPS * origin
    shape = (COLUMNS, ROWS, len(images))
    for axis in range(3):
        if flipped[axis]:
            affine[:3, 3] += affine[:3, axis] * (shape[axis] - 1)
            affine[:3, axis] *= -1
    order = list(permutation)
    affine[:3, :3] = affine[:3, order]
    return Grid("scan", tuple(shape[axis] for axis in order), affine)


def markers(grid: Grid, seed: int = 0) -> UInt8[np.ndarray, "i j k"]:
    """Scattered voxels of three classes, so that no turn or mirror image is the same, and one slice without any."""
    labels = np.random.default_rng(seed).choice([0, 0, 0, 1, 2, 5], size=grid.shape).astype(np.uint8)
    labels[0, 0, 0], labels[-1, 0, 0], labels[0, -1, 0] = 1, 2, 5
    return labels


def positions_of(labels: UInt8[np.ndarray, "i j k"], value: int, grid: Grid) -> Float[np.ndarray, "n 3"]:
    return np.argwhere(labels == value) @ grid.affine[:3, :3].T + grid.affine[:3, 3]


def positions_in(seg: Dataset, number: int) -> Float[np.ndarray, "n 3"]:
    """RAS positions of a segment's pixels, read frame by frame with pydicom and the standard's equation alone."""
    shared = seg.SharedFunctionalGroupsSequence[0]
    pixels = seg.pixel_array.reshape(-1, seg.Rows, seg.Columns)
    assert len(pixels) == seg.NumberOfFrames == len(seg.PerFrameFunctionalGroupsSequence)
    found = []
    for frame, own in zip(pixels, seg.PerFrameFunctionalGroupsSequence, strict=True):
        identification = (own if "SegmentIdentificationSequence" in own else shared).SegmentIdentificationSequence
        if identification[0].ReferencedSegmentNumber != number:
            continue
        orientation = np.array(shared.PlaneOrientationSequence[0].ImageOrientationPatient, dtype=float)
        row_to_row, column_to_column = map(float, shared.PixelMeasuresSequence[0].PixelSpacing)
        origin = np.array(own.PlanePositionSequence[0].ImagePositionPatient, dtype=float)
        for row, column in np.argwhere(frame):
            position = origin + orientation[:3] * column_to_column * column + orientation[3:] * row_to_row * row
            found.append(LPS * position)
    return np.array(found).reshape(-1, 3)


def same_places(found: Float[np.ndarray, "n 3"], expected: Float[np.ndarray, "m 3"]) -> bool:
    if len(found) != len(expected):
        return False
    distance, partner = cKDTree(expected).query(found)
    return bool((distance < 1e-3).all()) and len(set(partner)) == len(expected)


def written(seg: Dataset, folder: Path) -> Dataset:
    seg.save_as(folder / "seg.dcm")
    return pydicom.dcmread(folder / "seg.dcm")


def save(images: list[Dataset], folder: Path) -> Path:
    """Write images as a scanner might: names that say nothing, in the order of the list."""
    folder.mkdir(exist_ok=True)
    for number, image in enumerate(images):
        image.save_as(folder / f"IM{number:04d}", enforce_file_format=True)
    return folder / "IM0000"


def slices_of(images: list[Dataset], folder: Path) -> list[Slice]:
    """The slices as medseg reads them."""
    return list(open_volume(save(images, folder / "series")).stack.frames[0])


def shuffled(images: list, order: str) -> list:
    if order == "reversed":
        return images[::-1]
    return [images[n] for n in (2, 0, 3, 1)] if order == "shuffled" else images


@pytest.mark.parametrize("order", ["stored", "reversed", "shuffled"])
@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_every_voxel_comes_back_at_its_place_with_its_class(orientation, order, tmp_path):
    images = series(orientation)
    grid = grid_of_series(images)
    labels = markers(grid)
    slices = shuffled(slices_of(images, tmp_path), order)
    seg = written(seg_of(slices, labels, CLASSES, grid), tmp_path)
    assert [segment.SegmentLabel for segment in seg.SegmentSequence] == ["vessel", "organ of interest", "mass"]
    for number, value in ((1, 1), (2, 2), (3, 5)):
        assert same_places(positions_in(seg, number), positions_of(labels, value, grid))
    mirrored = labels[::-1]
    assert not same_places(positions_in(seg, 1), positions_of(mirrored, 1, grid))


@pytest.mark.parametrize("flipped", list(itertools.product([False, True], repeat=3)))
@pytest.mark.parametrize("permutation", list(itertools.permutations(range(3))))
def test_the_way_the_axes_of_the_grid_run_does_not_matter(permutation, flipped, tmp_path):
    images = series("oblique")
    plain = grid_of_series(images)
    labels = markers(plain)
    turned = np.flip(labels, [axis for axis in range(3) if flipped[axis]]).transpose(permutation)
    grid = grid_of_series(images, permutation=permutation, flipped=flipped)
    assert same_places(positions_of(turned, 2, grid), positions_of(labels, 2, plain))  # the test's own grids agree
    frames = frames_of(slices_of(images, tmp_path), turned, grid)
    assert np.array_equal(frames, labels.transpose(2, 1, 0))


@pytest.mark.parametrize("order", ["stored", "shuffled"])
def test_itk_reads_the_same_voxels_at_the_same_places(order, tmp_path):
    images = series("oblique")
    grid = grid_of_series(images)
    labels = np.zeros(grid.shape, np.uint8)
    labels[1:4, 2, :], labels[7, 0, 1], labels[0, 4, 3] = 1, 1, 1
    seg_of(shuffled(slices_of(images, tmp_path), order), labels, [VESSEL], grid).save_as(tmp_path / "seg.dcm")
    read = sitk.ReadImage(str(tmp_path / "seg.dcm"))
    found = [
        LPS * read.TransformIndexToPhysicalPoint([int(n) for n in index[::-1]])
        for index in np.argwhere(sitk.GetArrayViewFromImage(read))
    ]
    assert same_places(np.array(found), positions_of(labels, 1, grid))


def test_each_frame_refers_to_the_image_it_lies_on(tmp_path):
    images = series("oblique")
    grid = grid_of_series(images)
    labels = markers(grid)
    labels[:, :, 2] = 0
    seg = written(seg_of(shuffled(slices_of(images, tmp_path), "shuffled"), labels, CLASSES, grid), tmp_path)
    at = {tuple(np.round(image.ImagePositionPatient, 6)): image.SOPInstanceUID for image in images}
    referred = set()
    for own in seg.PerFrameFunctionalGroupsSequence:
        (source,) = own.DerivationImageSequence[0].SourceImageSequence
        position = tuple(np.round(own.PlanePositionSequence[0].ImagePositionPatient, 6))
        assert source.ReferencedSOPInstanceUID == at[position]
        referred.add(source.ReferencedSOPInstanceUID)
    assert referred == {images[n].SOPInstanceUID for n in (0, 1, 3)}
    (of_series,) = seg.ReferencedSeriesSequence
    assert of_series.SeriesInstanceUID == images[0].SeriesInstanceUID
    named = {entry.ReferencedSOPInstanceUID for entry in of_series.ReferencedInstanceSequence}
    assert named == {image.SOPInstanceUID for image in images}
    assert seg.StudyInstanceUID == images[0].StudyInstanceUID
    assert seg.FrameOfReferenceUID == images[0].FrameOfReferenceUID
    assert seg.SeriesInstanceUID != images[0].SeriesInstanceUID


def everything_written(dataset: Dataset) -> str:
    return "\n".join(str(element.value) for element in dataset.iterall() if element.VR != "SQ" and element.VR != "OB")


def test_nothing_tells_of_the_patient_the_place_or_the_date(tmp_path):
    images = series("axial")
    grid = grid_of_series(images)
    seg = written(seg_of(slices_of(images, tmp_path), markers(grid), CLASSES, grid), tmp_path)
    for keyword in ("PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyDate", "AccessionNumber"):
        assert keyword in seg and not seg[keyword].value
    names = ("Müller", "HOSP-4711", "House", "Clinic", "X Town", "STATION", "SER-555", "remark")
    for word in (*names, "19500203", "20210405", "071Y"):
        assert word not in everything_written(seg)
        assert word.encode() not in (tmp_path / "seg.dcm").read_bytes()
    assert seg.PatientName == "" and seg.SeriesDescription == seg.ContentDescription == RESEARCH_ONLY
    assert "Research use only" in RESEARCH_ONLY


def test_identity_is_kept_on_request_in_a_character_set_of_its_own(tmp_path):
    images = series("axial")
    grid = grid_of_series(images)
    slices = slices_of(images, tmp_path)
    seg = written(seg_of(slices, markers(grid), CLASSES, grid, keep_identity=True), tmp_path)
    assert seg.PatientName == "Müller^Jörg" and seg.PatientID == "HOSP-4711" and seg.PatientSex == "M"
    assert seg.PatientBirthDate == "19500203" and seg.StudyDate == "20210405" and seg.AccessionNumber == "ACC-77"
    assert seg.StudyDescription == "Head of Mr Müller" and seg.ReferringPhysicianName == "House^Gregory"
    assert "Clinic" not in everything_written(seg) and "remark" not in everything_written(seg)


def test_segments_say_what_they_are_and_who_made_them(tmp_path):
    images = series("axial")
    grid = grid_of_series(images)
    seg = written(seg_of(slices_of(images, tmp_path), markers(grid), CLASSES, grid), tmp_path)
    said = [
        (
            segment.SegmentedPropertyCategoryCodeSequence[0].CodeValue,
            segment.SegmentedPropertyTypeCodeSequence[0].CodeValue,
            segment.SegmentedPropertyTypeCodeSequence[0].CodingSchemeDesignator,
        )
        for segment in seg.SegmentSequence
    ]
    assert said == [
        ("91723000", "59820001", "SCT"),  # anatomical structure, blood vessel
        ("91723000", "10200004", "SCT"),  # liver, by the class's own code
        ("49755003", "4147007", "SCT"),  # morphologically abnormal structure, mass
    ]
    assert {segment.SegmentAlgorithmType for segment in seg.SegmentSequence} == {"AUTOMATIC"}
    assert {segment.SegmentAlgorithmName for segment in seg.SegmentSequence} == {"medseg"}
    assert seg.SegmentationType == "BINARY" and seg.Modality == "SEG" and seg.SegmentsOverlap == "NO"
    lightness = seg.SegmentSequence[1].RecommendedDisplayCIELabValue[0] / 65535 * 100
    assert 60 < lightness < 75  # a middle green


@pytest.mark.parametrize(
    ("name", "code", "category"),
    [
        ("Left artery", "51114001", "91723000"),
        ("tumour", "108369006", "49755003"),
        ("cluster 7", "85756007", "85756007"),
        ("Größe 画像\\x", "85756007", "85756007"),
        ("n" * 90, "85756007", "85756007"),
    ],
)
def test_names_suggest_terms_and_unknown_ones_are_tissue(name, code, category, tmp_path):
    images = series("axial")
    grid = grid_of_series(images)
    labels = (markers(grid) == 1).astype(np.uint8) * 9
    slices = slices_of(images, tmp_path)
    (segment,) = written(seg_of(slices, labels, [{"value": 9, "name": name}], grid), tmp_path).SegmentSequence
    assert segment.SegmentLabel == name.replace("\\", "/")[:64] and segment.SegmentNumber == 1
    assert segment.SegmentedPropertyTypeCodeSequence[0].CodeValue == code
    assert segment.SegmentedPropertyCategoryCodeSequence[0].CodeValue == category


def test_a_class_without_voxels_gets_no_segment_and_that_is_said(tmp_path, caplog):
    images = series("axial")
    grid = grid_of_series(images)
    labels = markers(grid)
    labels[labels == 2] = 0
    with caplog.at_level(logging.INFO):
        seg = written(seg_of(slices_of(images, tmp_path), labels, CLASSES, grid), tmp_path)
    assert [segment.SegmentLabel for segment in seg.SegmentSequence] == ["vessel", "mass"]
    assert same_places(positions_in(seg, 2), positions_of(labels, 5, grid))
    assert "holds no organ of interest" in caplog.text


def test_an_empty_mask_is_written_as_empty_frames_and_that_is_said(tmp_path, caplog):
    images = series("oblique")
    grid = grid_of_series(images)
    with caplog.at_level(logging.INFO):
        seg = seg_of(slices_of(images, tmp_path), np.zeros(grid.shape, np.uint8), CLASSES, grid)
    seg = written(seg, tmp_path)
    assert len(seg.SegmentSequence) == 3 and seg.NumberOfFrames == 3 * SLICES and not seg.pixel_array.any()
    assert "is empty" in caplog.text


def test_a_series_of_one_slice_and_one_without_thickness_are_written(tmp_path):
    images = series("oblique")
    grid = Grid("scan", (COLUMNS, ROWS, 1), grid_of_series(images).affine)
    del images[0].SliceThickness
    labels = markers(grid)
    seg = written(seg_of(slices_of(images[:1], tmp_path), labels, CLASSES, grid), tmp_path)
    assert same_places(positions_in(seg, 1), positions_of(labels, 1, grid))
    assert float(seg.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0].SliceThickness) == pytest.approx(STEP)


def multi_frame(images: list[Dataset], *, shared: bool = True) -> Dataset:
    """The same slices as one enhanced MR file, whose orientation and spacing are shared or stated with each frame."""
    file = Dataset()
    for keyword in ("StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID", "PatientName", "Rows", "Columns"):
        setattr(file, keyword, images[0][keyword].value)
    file.SOPClassUID, file.SOPInstanceUID, file.Modality = "1.2.840.10008.5.1.4.1.1.4.1", generate_uid(), "MR"
    for keyword in ("BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation", "SamplesPerPixel"):
        setattr(file, keyword, images[0][keyword].value)
    file.PhotometricInterpretation, file.file_meta = "MONOCHROME2", images[0].file_meta
    file.PixelData = b"".join(image.PixelData for image in images)
    orientation, measures, common = Dataset(), Dataset(), Dataset()
    orientation.ImageOrientationPatient = images[0].ImageOrientationPatient
    measures.PixelSpacing = images[0].PixelSpacing
    if shared:
        common.PlaneOrientationSequence, common.PixelMeasuresSequence = [orientation], [measures]
    file.SharedFunctionalGroupsSequence = [common]
    groups = []
    for image in images:
        position, group = Dataset(), Dataset()
        position.ImagePositionPatient = image.ImagePositionPatient
        group.PlanePositionSequence = [position]
        if not shared:
            group.PlaneOrientationSequence, group.PixelMeasuresSequence = [orientation], [measures]
        groups.append(group)
    file.PerFrameFunctionalGroupsSequence, file.NumberOfFrames = groups, len(groups)
    return file


@pytest.mark.parametrize("shared", [True, False])
def test_frames_of_a_multi_frame_file_are_referred_to_by_their_number(shared, tmp_path):
    images = series("oblique")
    grid = grid_of_series(images)
    labels = markers(grid)
    file = multi_frame(shuffled(images, "shuffled"), shared=shared)
    seg = written(seg_of(slices_of([file], tmp_path), labels, CLASSES, grid), tmp_path)
    assert same_places(positions_in(seg, 3), positions_of(labels, 5, grid))
    for own in seg.PerFrameFunctionalGroupsSequence:
        (source,) = own.DerivationImageSequence[0].SourceImageSequence
        referred = file.PerFrameFunctionalGroupsSequence[int(source.ReferencedFrameNumber) - 1]
        assert source.ReferencedSOPInstanceUID == file.SOPInstanceUID
        assert np.allclose(
            referred.PlanePositionSequence[0].ImagePositionPatient, own.PlanePositionSequence[0].ImagePositionPatient
        )


def test_of_a_file_with_several_volumes_the_frames_that_were_picked_are_referred_to(tmp_path):
    images = series("axial")
    grid = grid_of_series(images)
    labels = markers(grid)
    source = save([multi_frame([*images, *images])], tmp_path / "several")
    write_dicom_seg(tmp_path / "seg.dcm", labels, CLASSES, source=source, pick=Pick(frame=1))
    seg = pydicom.dcmread(tmp_path / "seg.dcm")
    numbers = {
        int(own.DerivationImageSequence[0].SourceImageSequence[0].ReferencedFrameNumber)
        for own in seg.PerFrameFunctionalGroupsSequence
    }
    assert numbers == {5, 6, 7, 8}
    assert same_places(positions_in(seg, 1), positions_of(labels, 1, grid))
    with pytest.raises(MedsegError, match="must have the frame 2, got 2"):
        write_dicom_seg(tmp_path / "x.dcm", labels, CLASSES, source=source, pick=Pick(frame=2))


@pytest.mark.parametrize("orientation", ["axial", "oblique"])
def test_from_the_series_over_the_mask_to_the_segmentation_and_back(orientation, tmp_path):
    images = series(orientation)
    source = save(shuffled(images, "shuffled"), tmp_path / "series")
    image = read_image(source)
    mask = (image.numpy()[0] % 3 == 1).astype(np.uint8)
    write_labels(tmp_path / "case_seg.nii.gz", mask, source=source)
    labels = read_labels(tmp_path / "case_seg.nii.gz")
    write_dicom_seg(tmp_path / "seg.dcm", labels.numpy()[0].astype(np.uint8), [VESSEL], source=source)
    seg = pydicom.dcmread(tmp_path / "seg.dcm")
    # by the stored pixels alone: those whose value is 1 modulo 3, at the places of their own slices
    expected = [
        LPS
        * (
            np.array(stored.ImagePositionPatient, dtype=float)
            + np.array(ORIENTATIONS[orientation][0]) * SPACING[1] * column
            + np.array(ORIENTATIONS[orientation][1]) * SPACING[0] * row
        )
        for stored in images
        for row, column in np.argwhere(stored.pixel_array % 3 == 1)
    ]
    assert len(expected) > 40
    assert same_places(positions_in(seg, 1), np.array(expected))
    assert same_places(positions_of(mask, 1, read_grid(source)), np.array(expected))


def test_a_pacs_is_told_apart_from_a_viewer(tmp_path, caplog):
    source = save(series("axial"), tmp_path / "series")
    labels = np.ones(read_grid(source).shape, np.uint8)
    with caplog.at_level(logging.INFO):
        write_dicom_seg(tmp_path / "a.dcm", labels, [VESSEL], source=source)
        assert "a PACS needs that" in caplog.text and "--keep-identity" in caplog.text
        caplog.clear()
        write_dicom_seg(tmp_path / "b.dcm", labels, [VESSEL], source=source, keep_identity=True)
        assert "PACS" not in caplog.text
    assert pydicom.dcmread(tmp_path / "b.dcm").PatientID == "HOSP-4711"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.dcm", "b.dcm", "series"]


def test_what_does_not_fit_is_refused(tmp_path):
    images = series("oblique")
    grid = grid_of_series(images)
    labels = markers(grid)
    slices = slices_of(images, tmp_path)
    with pytest.raises(MedsegError, match="got 3 slices that show 120 of them"):
        seg_of(slices[:-1], labels, CLASSES, grid)
    with pytest.raises(MedsegError, match="got 5 slices that show 160 of them"):
        seg_of([*slices, slices[0]], labels, CLASSES, grid)
    with pytest.raises(MedsegError, match="must have the shape"):
        seg_of(slices, labels[:-1], CLASSES, grid)
    with pytest.raises(MedsegError, match="got none for 5"):
        seg_of(slices, labels, CLASSES[:2], grid)
    shifted = grid.affine.copy()
    shifted[0, 3] += 0.5 * STEP
    with pytest.raises(MedsegError, match="voxels off its grid"):
        seg_of(slices, labels, CLASSES, Grid("scan", grid.shape, shifted))


def test_sources_that_a_segmentation_cannot_refer_to_are_refused_in_one_line(tmp_path):
    labels = np.ones((COLUMNS, ROWS, SLICES), np.uint8)
    images = series("axial")
    for image in images:
        del image.FrameOfReferenceUID
    nowhere = save(images, tmp_path / "nowhere")
    with pytest.raises(MedsegError, match="no Frame Of Reference UID") as refused:
        write_dicom_seg(tmp_path / "x.dcm", labels, [VESSEL], source=nowhere)
    assert "\n" not in str(refused.value)
    nifti = tmp_path / "scan.nii.gz"
    nibabel.save(nibabel.Nifti1Image(labels, np.eye(4)), nifti)
    with pytest.raises(MedsegError, match=r"must have a DICOM source, got .*scan.nii.gz; export --to slicer or nifti"):
        write_dicom_seg(tmp_path / "x.dcm", labels, [VESSEL], source=nifti)
    source = save(series("axial"), tmp_path / "series")
    with pytest.raises(MedsegError, match=r"as it was stored, got .* resampled"):
        write_dicom_seg(tmp_path / "x.dcm", labels, [VESSEL], source=source, pick=Pick(resample=True))
    picture = series("axial")[:1]
    del picture[0].ImagePositionPatient
    with pytest.raises(MedsegError, match="must have images that say where they lie"):
        write_dicom_seg(tmp_path / "x.dcm", labels, [VESSEL], source=save(picture, tmp_path / "picture"))
    assert not (tmp_path / "x.dcm").exists()


def test_a_missing_package_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "highdicom", None)
    with pytest.raises(MedsegError, match=r"pip install medseg\[dicom\]$"):
        write_dicom_seg(tmp_path / "x.dcm", np.ones((1, 1, 1), np.uint8), [VESSEL], source=tmp_path / "a.dcm")
