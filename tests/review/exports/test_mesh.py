"""Surfaces: closed, outward, in place, and as large as their voxels."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import trimesh
from review.exports.painted import GRIDS, SHEARED, mask
from skimage.measure import marching_cubes

from medseg.errors import MedsegError
from medseg.phantoms.vessels import make_vessel_phantom
from medseg.review.exports.mesh import ply_bytes, stl_bytes, surface, write_meshes

LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
AFFINES = {**GRIDS, "sheared": SHEARED}


def _sphere(radius: float) -> np.ndarray:
    half = int(radius) + 3
    places = (
        np.indices((2 * half, 2 * half + 1, 2 * half + 2))
        - np.array([half - 0.7, half, half + 0.4])[:, None, None, None]
    )
    return (places**2).sum(axis=0) <= radius**2


def _tube(radius: float) -> np.ndarray:
    places = np.stack(np.indices((40, 30, 30)), -1) - np.array([19.5, 14.6, 14.3])
    along = np.array([1, 0.45, 0.3]) / np.linalg.norm([1, 0.45, 0.3])
    length = places @ along
    return (np.linalg.norm(places - length[..., None] * along, axis=-1) <= radius) & (np.abs(length) < 16)


def _bend(radius: float) -> np.ndarray:
    places = np.stack(np.indices((40, 40, 24)), -1).astype(float)
    nearest = np.full(places.shape[:3], np.inf)
    for angle in np.linspace(0, 2 * np.pi, 120):
        centre = (20 + 13 * np.cos(angle), 20 + 13 * np.sin(angle), 5 + 2 * angle)
        nearest = np.minimum(nearest, ((places - centre) ** 2).sum(axis=-1))
    return nearest <= radius**2


BODIES = {
    "sphere of 3": _sphere(3),
    "sphere of 10": _sphere(10),
    "tube of 1": _tube(1),
    "tube of 1.5": _tube(1.5),
    "tube of 2.5": _tube(2.5),
    "bend of 1.5": _bend(1.5),
    "one voxel": np.ones((1, 1, 1), bool),
    "row of voxels": np.ones((10, 1, 1), bool),
    "specks that touch at edges": np.random.default_rng(0).random((14, 15, 16)) < 0.2,
    "up to the border": np.ones((6, 5, 4), bool),
}


def _volume(inside: np.ndarray, affine: np.ndarray) -> float:
    return inside.sum() * abs(np.linalg.det(affine[:3, :3]))


@pytest.mark.parametrize("grid", AFFINES)
@pytest.mark.parametrize("body", BODIES)
def test_volume_is_that_of_the_voxels_and_the_surface_is_closed(body: str, grid: str) -> None:
    mesh = surface(BODIES[body], LPS @ AFFINES[grid])
    for read in (
        trimesh.load(io.BytesIO(ply_bytes(mesh, b"\1\2\3")), file_type="ply"),
        trimesh.load(io.BytesIO(stl_bytes(mesh)), file_type="stl"),
    ):
        assert read.volume == pytest.approx(_volume(BODIES[body], AFFINES[grid]), rel=2e-3)  # asked for: 2 %
        assert read.is_watertight
        assert read.is_winding_consistent


def test_without_the_correction_thin_vessels_would_lose_much() -> None:
    cut, faces = marching_cubes(np.pad(BODIES["tube of 1.5"], 1).astype(np.float32), 0.499)[:2]
    raw = trimesh.Trimesh(cut, faces).volume / BODIES["tube of 1.5"].sum() - 1
    assert abs(raw) > 0.05


def test_each_part_has_its_own_volume() -> None:
    both = np.zeros((60, 30, 30), bool)
    both[2:26, 2:26, 2:26] = _sphere(10)[:24, :24, :24]
    both[40:50, 15, 15] = True
    large, small = sorted(surface(both, np.eye(4)).split(), key=lambda part: -part.volume)
    assert small.volume == pytest.approx(10, rel=2e-3)
    assert large.volume == pytest.approx(both.sum() - 10, rel=2e-3)


def test_cavity_stays_empty() -> None:
    shell = _sphere(10) & ~np.pad(_sphere(5), [(5, 5)] * 3)
    mesh = surface(shell, np.eye(4))
    assert mesh.volume == pytest.approx(shell.sum(), rel=2e-3)
    assert len(mesh.split(only_watertight=False)) == 2


def test_vessel_tree_keeps_its_volume() -> None:
    phantom = make_vessel_phantom(seed=3, shape=(72, 72, 56), spacing=(0.8, 0.8, 0.9))
    inside = phantom.label > 0
    assert inside.sum() > 1000
    mesh = surface(inside, LPS @ phantom.affine)
    assert mesh.volume == pytest.approx(_volume(inside, phantom.affine), rel=2e-3)
    assert mesh.is_watertight


def test_sphere_is_smoother_than_its_voxels_and_where_they_are() -> None:
    inside = _sphere(10)
    mesh = surface(inside, np.eye(4))
    cut, faces = marching_cubes(np.pad(inside, 1).astype(np.float32), 0.499)[:2]
    stairs = np.degrees(trimesh.Trimesh(cut, faces, process=False).face_adjacency_angles).mean()
    assert np.degrees(mesh.face_adjacency_angles).mean() < 0.7 * stairs
    far = np.linalg.norm(mesh.vertices - (12.3, 13, 13.4), axis=1) - 10
    assert np.abs(far).max() < 0.6
    assert np.sqrt((far**2).mean()) < 0.16


@pytest.mark.parametrize("grid", GRIDS)
def test_files_lie_where_the_mask_lies_with_normals_outwards(tmp_path: Path, grid: str) -> None:
    written = write_meshes(tmp_path / "out", mask(tmp_path, GRIDS[grid]))
    names = ["P1_tof_1_vessel.ply", "P1_tof_1_vessel.stl", "P1_tof_4_a_mass_b.ply", "P1_tof_4_a_mass_b.stl"]
    assert [path.name for path in written] == names  # what is background gets none
    voxel = (LPS @ GRIDS[grid] @ (6, 5, 3, 1))[:3]
    for path in written[2:]:
        mesh = trimesh.load(path)
        assert np.allclose(mesh.vertices.mean(axis=0), voxel, atol=0.02)
        outwards = np.einsum("ij,ij->i", mesh.face_normals, mesh.triangles_center - voxel)
        assert (outwards > 0).all()
        assert mesh.volume > 0
    vessel = trimesh.load(written[0])
    middle = (LPS @ GRIDS[grid] @ (2.5, 2.5, 1.5, 1))[:3]
    assert np.allclose(vessel.center_mass, middle, atol=0.05)
    assert vessel.visual.vertex_colors[0][:3].tolist() == [230, 25, 75]


def test_headers_say_in_which_space_they_are(tmp_path: Path) -> None:
    ply, stl, *_ = (path.read_bytes() for path in write_meshes(tmp_path / "out", mask(tmp_path, GRIDS["LAS"])))
    assert b"\ncomment SPACE=LPS\n" in ply
    assert b"SPACE=LPS" in stl[:80]
    assert not stl.startswith(b"solid")  # which would make it a text file


def test_class_without_voxels_gets_no_mesh_and_a_picture_none(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    whole = mask(tmp_path, GRIDS["LAS"])
    whole.labels[whole.labels == 4] = 0
    with caplog.at_level("INFO"):
        assert len(write_meshes(tmp_path / "out", whole)) == 2
    assert 'no voxel of a "mass" <&> b' in caplog.text
    with pytest.raises(MedsegError, match="must be a volume"):
        write_meshes(tmp_path / "out", mask(tmp_path, GRIDS["LAS"], is_picture=True))
