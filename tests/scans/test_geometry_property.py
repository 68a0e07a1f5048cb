"""A voxel that is bright in a scan lies at the same place in the world when its mask is read by somebody else.

Hypothesis draws the scans; the truth is the affine that they were drawn with. nibabel and SimpleITK read the masks.
"""

from __future__ import annotations

import gzip
import itertools
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dicom_writing
import nibabel
import numpy as np
import pytest
import SimpleITK
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from medseg.prepare import chain
from medseg.prepare.chain import angiogram_transforms, prepare_case
from medseg.scans.arrays import read_grid
from medseg.scans.cases import Case
from medseg.scans.masks import write_labels
from medseg.scans.nifti import read_header
from medseg.scans.readers import read_image
from medseg.workflows.volumes import _stored

TOLERANCE_MM = 1e-3
FORMS = ("dim", "pixdim", "qform_code", "sform_code", "xyzt_units", "quatern_b", "quatern_c", "quatern_d")
FORMS += ("qoffset_x", "qoffset_y", "qoffset_z", "srow_x", "srow_y", "srow_z", "dim_info", "slice_code")
UNITS_MM = {0: 1.0, 1: 1000.0, 2: 1.0, 3: 1e-3}
"""Millimetres by the unit's number in NIfTI: unknown, metre, millimetre, micrometre."""
ORIENTATIONS = list(itertools.product(itertools.permutations(range(3)), itertools.product((1, -1), repeat=3)))
WORLDS = {"left-posterior-superior": (-1, -1, 1), "right-anterior-superior": (1, 1, 1), "LAS": (-1, 1, 1)}
"""Signs of the spaces of NRRD, seen from RAS."""
IN_ITK = np.array([-1.0, -1.0, 1.0])
"""SimpleITK says where things are in LPS."""

drawn = settings(
    max_examples=6,
    derandomize=True,  # the same scans on every machine
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],  # examples replace their files
)


@pytest.fixture(autouse=True)
def _quiet() -> None:
    SimpleITK.ProcessObject.SetGlobalWarningDisplay(False)


@dataclass(frozen=True)
class Scan:
    """What a file is to hold.

    Attributes:
        shape: voxels.
        affine: from voxels to RAS, mm.
        is_sheared: whether its axes are not at right angles.
        markers: the voxel of each label from 1 on.
    """

    shape: tuple[int, int, int]
    affine: np.ndarray
    is_sheared: bool
    markers: tuple[tuple[int, int, int], ...]

    @property
    def labels(self) -> np.ndarray:
        labels = np.zeros(self.shape, np.uint8)
        for value, voxel in enumerate(self.markers, start=1):
            labels[voxel] = value
        return labels

    def require_at(self, found: dict[int, np.ndarray], affine: np.ndarray | None = None) -> None:
        """Check positions by label, in RAS and mm."""
        truth = self.affine if affine is None else affine
        assert found.keys() == {value for value in np.unique(self.labels).tolist() if value}
        for value, position in found.items():
            wanted = truth[:3, :3] @ self.markers[value - 1] + truth[:3, 3]
            assert np.abs(position - wanted).max() < TOLERANCE_MM, (value, position, wanted)


def rotation(angles: tuple[float, float, float]) -> np.ndarray:
    turned = np.eye(3)
    for axis, angle in enumerate(angles):
        step = np.eye(3)
        one, other = [n for n in range(3) if n != axis]
        step[[one, one, other, other], [one, other, one, other]] = (
            np.cos(angle), -np.sin(angle), np.sin(angle), np.cos(angle),
        )  # fmt: skip
        turned = step @ turned
    return turned


@st.composite
def scans(draw: st.DrawFn, orientation: int, *, longest: int = 301, may_shear: bool = True) -> Scan:
    """Scans of one of the 48 orientations; some are long, because small errors of an angle show far away."""
    axes, signs = ORIENTATIONS[orientation]
    shape = list(draw(st.tuples(*[st.integers(2, 7)] * 3)))
    if draw(st.booleans()):
        shape[draw(st.integers(0, 2))] = longest
    spacing = draw(st.tuples(*[st.floats(0.2, 4)] * 3))
    angle, none = st.floats(-0.4, 0.4), st.just(0.0)
    angles = draw(st.one_of(*(st.tuples(*turns) for turns in ([none] * 3, [none, none, angle], [angle] * 3))))
    is_sheared = may_shear and draw(st.sampled_from([False, False, True]))
    affine = np.eye(4)
    shear = np.eye(3)
    shear[0, 1], shear[1, 2] = (draw(st.floats(0.05, 0.3)), draw(st.floats(-0.3, 0.3))) if is_sheared else (0, 0)
    affine[:3, :3] = rotation(angles) @ shear @ np.diag(signs)[:, axes] @ np.diag(spacing)
    affine[:3, 3] = draw(st.tuples(*[st.floats(-900, 900)] * 3))
    voxel = st.tuples(*(st.integers(0, length - 1) for length in shape))
    corner = tuple(length - 1 for length in shape)
    markers = (corner, *draw(st.lists(voxel, min_size=1, max_size=2, unique=True)))
    return Scan((shape[0], shape[1], shape[2]), affine, is_sheared, markers)


@st.composite
def headers(draw: st.DrawFn) -> dict[str, Any]:
    """How a NIfTI file may say it."""
    return {
        "forms": draw(st.sampled_from(["sform", "qform", "both", "differ a little", "none"])),
        "code": draw(st.integers(1, 4)),
        "unit": draw(st.sampled_from(list(UNITS_MM))),
        "order": draw(st.sampled_from("<>")),
        "kind": draw(st.sampled_from([nibabel.Nifti1Header, nibabel.Nifti2Header])),
        "dtype": draw(st.sampled_from(["u1", "i2", "f4", "f8"])),
        "scaling": draw(st.sampled_from([(1.0, 0.0), (0.5, -3.0), (-2.0, 7.0), (0.0, 0.0), (np.nan, np.nan)])),
        "singletons": draw(st.integers(0, 2)),
        "is_negative": draw(st.booleans()),
        "extension": draw(st.sampled_from([".nii", ".nii.gz"])),
    }


def write_nifti(folder: Path, scan: Scan, said: dict[str, Any]) -> tuple[Path, np.ndarray]:
    """Write the markers; the file, and the affine in mm that its header means."""
    unit, forms = UNITS_MM[said["unit"]], said["forms"]
    affine = scan.affine.copy()
    affine[:3] /= unit
    header = said["kind"]()
    header.set_data_dtype(said["dtype"])
    header.set_data_shape((*scan.shape, *[1] * said["singletons"]))
    header.set_zooms((*np.linalg.norm(affine[:3, :3], axis=0), *[1] * said["singletons"]))
    if forms == "qform" or (forms == "both" and not scan.is_sheared):
        header.set_qform(affine, said["code"])  # pixdim[0] becomes -1 for half of the orientations
        affine = header.get_qform()  # the nearest without shear
    if forms == "differ a little":
        nearby = affine.copy()
        nearby[:3, 3] += np.array([1e-4, -2e-4, 5e-5]) / unit
        header.set_qform(nearby, said["code"])
    if forms in ("sform", "both", "differ a little"):
        header.set_sform(affine, said["code"])
    if forms == "none":
        affine = np.diag([-1.0, 1, 1, 1]) * [*header["pixdim"][1:4], 1]  # as Analyze lay: from right to left, around 0
        affine[:3, 3] = -affine[:3, :3] @ (np.array(scan.shape) - 1) / 2
    if forms == "sform" and said["is_negative"]:
        header["pixdim"][1:3] *= -1
    header["scl_slope"], header["scl_inter"] = said["scaling"]
    header["xyzt_units"], header["dim_info"], header["descrip"] = said["unit"], 57, b"a scan"
    header["magic"] = header.single_magic
    header["vox_offset"] = header["sizeof_hdr"] + 4
    voxels = (scan.labels * 20).astype(np.dtype(said["dtype"]).newbyteorder(said["order"]))
    content = header.as_byteswapped(said["order"]).binaryblock + bytes(4) + voxels.tobytes(order="F")
    path = folder / f"scan{said['extension']}"
    path.write_bytes(gzip.compress(content, 1) if said["extension"] == ".nii.gz" else content)
    affine[:3] *= unit
    return path, affine


def write_nrrd(path: Path, scan: Scan, world: str) -> Path:
    def vector(position: np.ndarray) -> str:
        return "(" + ",".join(repr(float(part)) for part in position * WORLDS[world]) + ")"

    lines = ["NRRD0004", "type: uint8", "dimension: 3", f"space: {world}", "encoding: raw"]
    lines.append("sizes: " + " ".join(map(str, scan.shape)))
    lines.append("space directions: " + " ".join(vector(column) for column in scan.affine[:3, :3].T))
    lines.append(f"space origin: {vector(scan.affine[:3, 3])}")
    path.write_bytes("\n".join([*lines, "", ""]).encode() + scan.labels.tobytes(order="F"))
    return path


def write_metaimage(path: Path, scan: Scan, is_negative: bool) -> Path:
    spacing = np.linalg.norm(scan.affine[:3, :3], axis=0) * ([1, -1, 1] if is_negative else [1, 1, 1])
    directions = IN_ITK[:, None] * scan.affine[:3, :3] / spacing

    def row(numbers: np.ndarray) -> str:
        return " ".join(repr(float(number)) for number in numbers)

    lines = ["ObjectType = Image", "NDims = 3", "BinaryData = True", "BinaryDataByteOrderMSB = False"]
    lines += ["CompressedData = False", f"TransformMatrix = {row(directions.T.ravel())}"]  # an axis a row
    lines += [f"Offset = {row(IN_ITK * scan.affine[:3, 3])}", f"ElementSpacing = {row(spacing)}"]
    lines += ["DimSize = " + " ".join(map(str, scan.shape)), "ElementType = MET_UCHAR", "ElementDataFile = LOCAL", ""]
    path.write_bytes("\n".join(lines).encode() + scan.labels.tobytes(order="F"))
    return path


def seen_by_nibabel(path: Path) -> dict[int, np.ndarray]:
    """Where each label lies, in RAS; in the file's unit, of which nibabel knows nothing."""
    image = nibabel.load(path)
    voxels = np.asanyarray(image.dataobj).reshape(image.shape[:3])
    places = {value: np.argwhere(voxels == value) for value in np.unique(voxels).tolist() if value}
    assert all(len(place) == 1 for place in places.values())
    return {value: nibabel.affines.apply_affine(image.affine, place[0]) for value, place in places.items()}


def opened_by_itk(path: Path) -> SimpleITK.Image | None:
    """An image of three axes; none where SimpleITK refuses a grid that is not at right angles, or drops an axis."""
    with suppress(RuntimeError):
        image = SimpleITK.ReadImage(str(path))
        return image if image.GetDimension() == 3 else None
    return None


def seen_by_itk(image: SimpleITK.Image, labels: np.ndarray) -> dict[int, np.ndarray]:
    """Where SimpleITK says the voxels of labels lie, in RAS and mm."""
    places = {value: np.argwhere(labels == value)[0].tolist() for value in np.unique(labels).tolist() if value}
    return {value: IN_ITK * image.TransformIndexToPhysicalPoint(place) for value, place in places.items()}


def mask_of(source: Path, scaling: tuple[float, float] = (1.0, 0.0), step: int = 1) -> Path:
    """A mask of the markers as medseg reads them."""
    slope, intercept = scaling if np.isfinite(scaling[0]) and scaling[0] else (1.0, 0.0)  # a slope of 0 means none
    image = read_image(source).numpy()[0]
    path = source.parent / "seg.nii.gz"
    write_labels(path, np.rint((image - intercept) / slope / step).astype(np.uint8), source=source)
    return path


@pytest.mark.parametrize("orientation", range(48))
def test_a_marker_in_a_nifti_scan_stays_where_it_is_and_the_header_too(orientation: int, tmp_path: Path) -> None:
    @drawn
    @given(scans(orientation), headers())
    def check(scan: Scan, said: dict[str, Any]) -> None:
        source, affine = write_nifti(tmp_path, scan, said)
        assert np.allclose(read_grid(source).affine, affine, rtol=1e-5, atol=1e-4)
        mask = mask_of(source, said["scaling"], 20)
        unit = UNITS_MM[said["unit"]]
        scan.require_at({value: place * unit for value, place in seen_by_nibabel(mask).items()}, affine)
        before, after = read_header(source), read_header(mask)
        for field in FORMS:
            assert np.array_equal(before[field], after[field], equal_nan=before[field].dtype.kind == "f"), field
        assert read_grid(mask).shape == read_grid(source).shape
        assert np.array_equal(read_grid(mask).affine, read_grid(source).affine)
        by_mask, by_scan = opened_by_itk(mask), opened_by_itk(source)
        assert (by_mask is None) == (by_scan is None)
        if by_mask is not None:  # its rules are its own where forms differ, but they are the same for both
            found = seen_by_itk(by_mask, SimpleITK.GetArrayFromImage(by_mask).T)
            for value, place in seen_by_itk(by_scan, scan.labels).items():
                assert np.abs(found[value] - place).max() < TOLERANCE_MM

    check()


def require_right_place(scan: Scan, source: Path) -> Path:
    """Check the mask of a scan that is no NIfTI file, and give it."""
    grid = read_grid(source)
    assert grid.shape == scan.shape
    assert np.allclose(grid.affine, scan.affine, atol=1e-9)
    mask = mask_of(source)
    scan.require_at(seen_by_nibabel(mask))
    assert nibabel.load(mask).shape == scan.shape
    itk = opened_by_itk(mask)
    assert (itk is None) == scan.is_sheared  # refused, rather than put at a wrong place
    if itk is not None:
        scan.require_at(seen_by_itk(itk, SimpleITK.GetArrayFromImage(itk).T))
    return mask


@pytest.mark.parametrize("orientation", range(48))
def test_a_marker_in_a_nrrd_or_metaimage_scan_stays_where_it_is(orientation: int, tmp_path: Path) -> None:
    @drawn
    @given(scans(orientation), st.sampled_from([*WORLDS, "MetaImage", "MetaImage of negative spacing"]))
    def check(scan: Scan, how: str) -> None:
        if how in WORLDS:
            source = write_nrrd(tmp_path / "scan.nrrd", scan, how)
        else:
            source = write_metaimage(tmp_path / "scan.mha", scan, "negative" in how)
        require_right_place(scan, source)

    check()


def write_series(folder: Path, scan: Scan) -> Path:
    """Write a DICOM series, a file a slice; any of them names it."""
    spacing = np.linalg.norm(scan.affine[:3, :3], axis=0)
    across, down, ahead = (IN_ITK[:, None] * scan.affine[:3, :3] / spacing).T
    series = dicom_writing.slices(
        scan.labels.transpose(2, 1, 0).astype(np.uint16),
        orientation=(*across, *down),
        spacing=(spacing[1], spacing[0]),
        distance=spacing[2] * np.sign(np.cross(across, down) @ ahead),
        origin=IN_ITK * scan.affine[:3, 3],
    )
    return dicom_writing.write(folder, series)[0]


@pytest.mark.parametrize("orientation", range(48))
def test_a_marker_in_a_dicom_series_stays_where_it_is(orientation: int, tmp_path: Path) -> None:
    folders = (tmp_path / str(number) for number in itertools.count())

    @settings(drawn, max_examples=2)
    @given(scans(orientation, longest=9, may_shear=False))
    def check(scan: Scan) -> None:
        mask = mask_of(write_series(next(folders), scan))
        scan.require_at(seen_by_nibabel(mask))
        assert sorted(nibabel.load(mask).shape) == sorted(scan.shape)
        itk = SimpleITK.ReadImage(str(mask))
        scan.require_at(seen_by_itk(itk, SimpleITK.GetArrayFromImage(itk).T))

    check()


@pytest.mark.parametrize("angle", np.linspace(0.01, 0.5, 8))
def test_half_a_turn_of_fine_voxels_is_not_left_to_a_rounded_quaternion(angle: float, tmp_path: Path) -> None:
    # Its fourth number is the root of what the other three leave of 1, and those have seven digits.
    affine = np.eye(4)
    affine[:3, :3] = rotation((0, 0, angle)) @ np.diag([0.2, -0.2, -0.2])
    scan = Scan((512, 512, 2), affine, False, ((511, 511, 1),))
    mask = nibabel.load(require_right_place(scan, write_nrrd(tmp_path / "scan.nrrd", scan, "LAS")))
    far = np.array([511, 511, 1, 1])
    turned, coded = mask.get_qform(coded=True)
    assert coded == 0 or np.abs(turned @ far - affine @ far).max() < 1e-3


@pytest.mark.parametrize("orientation", range(0, 48, 5))
@pytest.mark.parametrize("spacing", [None, (0.9, 0.8, 1.1)])
def test_a_block_comes_back_through_the_whole_chain(
    orientation: int, spacing: tuple[float, float, float] | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chain.FluxMapsd, "__call__", lambda self, data: dict(data))  # costly, and no part of geometry
    transforms = angiogram_transforms(brain_mask="none", spacing=spacing)
    blocks = ((4, 5, 4), (12, 6, 10), (9, 14, 5))

    @settings(drawn, max_examples=2)
    @given(scans(orientation, longest=5))
    def check(scan: Scan) -> None:
        shape, affine = (17, 19, 15), scan.affine.copy()
        affine[:3, :3] *= np.array([1.2, 1.0, 1.6]) / np.linalg.norm(affine[:3, :3], axis=0)
        tissue = np.random.default_rng(0).uniform(90, 110, shape).astype(np.float32)
        labels = np.zeros(shape, np.uint8)
        for value, (i, j, k) in enumerate(blocks, start=1):
            labels[i - 1 : i + 2, j - 1 : j + 2, k - 1 : k + 2] = value
        source = tmp_path / "scan.nii"
        nibabel.save(nibabel.Nifti1Image(tissue + 1000.0 * labels, affine), source)
        sample = prepare_case(Case("a", source, "a"), transforms)
        found = np.rint((sample["image"].numpy() * sample["facts"]["tissue_median"] - 100) / 1000).clip(0)
        back = _stored(found.astype(np.uint8), sample, nearest=True)[0]
        write_labels(tmp_path / "seg.nii.gz", back, source=source)
        written = nibabel.load(tmp_path / "seg.nii.gz")
        voxels = np.asanyarray(written.dataobj)
        if spacing is None:
            assert np.array_equal(voxels, labels)
        for value, block in enumerate(blocks, start=1):
            assert voxels[block] == value
            place = nibabel.affines.apply_affine(written.affine, block)
            assert np.abs(place - (affine[:3, :3] @ block + affine[:3, 3])).max() < TOLERANCE_MM

    check()
