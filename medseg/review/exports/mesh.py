"""This file turns each class of a mask into a closed surface in mm, as PLY and STL.

Positions are LPS+, which 3D Slicer expects of both formats since 2019; the header says so (`SPACE=LPS`). A *part* is a
connected piece of a class. Marching cubes cuts the corners of voxels and smoothing shrinks what is thin, so that a
vessel three voxels wide would lose a tenth of its volume: each part is therefore moved outwards along its normals, by
the one distance that gives it the volume of its voxels.
"""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import trimesh
from jaxtyping import Bool, Float, Int
from scipy import ndimage
from skimage.measure import marching_cubes
from trimesh.smoothing import filter_taubin, laplacian_calculation

from medseg import __version__
from medseg.errors import MedsegError
from medseg.files import replacing
from medseg.review.exports.masks import Mask, file_word

_log = logging.getLogger(__name__)

_LEVEL = 0.499
"""Of marching cubes between 0 and 1: at exactly one half voxels that touch at an edge would share that edge."""
_ITERATIONS = 20
"""Passes of Taubin's filter, half of them outwards: the steps of voxels vanish, bends of some voxels stay."""
_LAMBDA, _NU = 0.5, 0.53
"""Weights of its inward and outward passes (Taubin 1995): what is longer than about ten voxels keeps its size."""
_FARTHEST_VOXELS = 0.3
"""How far smoothing may move a point: a vessel one voxel wide would otherwise shrink to a thread."""
_PASSES = 30
_VOLUME_TOLERANCE = 1e-4
"""Share of a part's volume that may remain wrong; reached in 3 to 6 passes, in up to 25 by a single voxel."""


def write_meshes(folder: Path, mask: Mask) -> list[Path]:
    """Write `CASE_VALUE_CLASS.ply` and `.stl` of each class that has voxels; what is background is left out.

    Raises:
        MedsegError: the source is a picture, which has no mm.
    """
    if mask.is_picture:
        raise MedsegError(f"{mask.case_id} must be a volume to become a surface in mm, got a picture; leave out mesh")
    boxes = ndimage.find_objects(mask.labels)
    written = []
    for entry in mask.classes:
        box = boxes[entry.value - 1] if entry.value <= len(boxes) else None
        if entry.background:
            continue
        if box is None:
            _log.info("%s: no voxel of %s, so it gets no mesh", mask.case_id, entry.name)
            continue
        first = np.eye(4)
        first[:3, 3] = [side.start for side in box]
        mesh = surface(mask.labels[box] == entry.value, mask.lps @ first)
        path = folder / f"{mask.case_id}_{entry.value}_{file_word(entry.name)}"
        written += [path.with_name(f"{path.name}{suffix}") for suffix in (".ply", ".stl")]
        _write(written[-2], ply_bytes(mesh, bytes.fromhex(entry.colour.removeprefix("#"))))
        _write(written[-1], stl_bytes(mesh))
    return written


def surface(inside: Bool[np.ndarray, "i j k"], affine: Float[np.ndarray, "4 4"]) -> trimesh.Trimesh:
    """A closed surface with outward normals round the voxels that are true, with their volume.

    Args:
        inside: the voxels; at least one.
        affine: voxel index to mm.
    """
    padded = np.pad(inside, 1)  # closes the surface where the voxels reach the end of the volume
    parts, count = ndimage.label(padded, np.ones((3, 3, 3)))
    cut, faces = marching_cubes(padded.astype(np.float32), _LEVEL)[:2]
    # Each point lies about halfway between a voxel inside, whose part it belongs to, and one outside.
    part_of_point = np.maximum(parts[tuple(np.floor(cut).astype(int).T)], parts[tuple(np.ceil(cut).astype(int).T)]) - 1
    smooth = cut + _shortened(_smoothed(cut, faces) - cut)
    mesh = trimesh.Trimesh((smooth - 1) @ affine[:3, :3].T + affine[:3, 3], faces, process=False)
    if mesh.volume < 0:  # a mirrored grid turns the faces inside out
        mesh.invert()
    voxels = np.bincount(parts[padded] - 1, minlength=count)
    return _with_volume(mesh, part_of_point, voxels * abs(float(np.linalg.det(affine[:3, :3]))))


def ply_bytes(mesh: trimesh.Trimesh, colour: bytes) -> bytes:
    """A binary PLY file with one colour (red, green, blue)."""
    header = (
        "ply\nformat binary_little_endian 1.0\n"
        f"comment medseg {__version__}, research use only\ncomment SPACE=LPS\ncomment positions in mm\n"
        f"element vertex {len(mesh.vertices)}\nproperty float x\nproperty float y\nproperty float z\n"
        "property uchar red\nproperty uchar green\nproperty uchar blue\n"
        f"element face {len(mesh.faces)}\nproperty list uchar int vertex_indices\nend_header\n"
    )
    points = np.empty(len(mesh.vertices), np.dtype([("xyz", "<f4", 3), ("colour", "u1", 3)]))
    points["xyz"], points["colour"] = mesh.vertices, list(colour)
    faces = np.empty(len(mesh.faces), np.dtype([("count", "u1"), ("points", "<i4", 3)]))
    faces["count"], faces["points"] = 3, mesh.faces
    return header.encode() + points.tobytes() + faces.tobytes()


def stl_bytes(mesh: trimesh.Trimesh) -> bytes:
    """A binary STL file."""
    header = f"medseg {__version__}, research use only. SPACE=LPS, mm".encode().ljust(80)
    faces = np.zeros(len(mesh.faces), np.dtype([("normal", "<f4", 3), ("points", "<f4", (3, 3)), ("unused", "<u2")]))
    faces["normal"], faces["points"] = mesh.face_normals, mesh.triangles
    return header + len(faces).to_bytes(4, "little") + faces.tobytes()


def _smoothed(points: Float[np.ndarray, "n 3"], faces: Int[np.ndarray, "m 3"]) -> Float[np.ndarray, "n 3"]:
    mesh = trimesh.Trimesh(points, faces, process=False)
    return np.asarray(filter_taubin(mesh, _LAMBDA, _NU, _ITERATIONS, laplacian_calculation(mesh)).vertices)


def _shortened(moves: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, "n 3"]:
    lengths = np.linalg.norm(moves, axis=1, keepdims=True)
    return moves * np.minimum(1, _FARTHEST_VOXELS / np.maximum(lengths, np.finfo(float).tiny))


def _with_volume(
    mesh: trimesh.Trimesh, part_of_point: Int[np.ndarray, " n"], wanted_mm3: Float[np.ndarray, " parts"]
) -> trimesh.Trimesh:
    """Move each part along its normals until it has the volume that is wanted, by Newton's method."""
    start, normals = np.array(mesh.vertices), np.array(mesh.vertex_normals)
    part_of_face = part_of_point[mesh.faces[:, 0]]
    moved_mm = np.zeros(len(wanted_mm3))
    centre = start.mean(axis=0)  # volumes are sums of signed tetrahedra: far from the origin they would lose digits
    for _ in range(_PASSES):
        points = start + moved_mm[part_of_point, None] * normals
        corners = points[mesh.faces] - centre
        across = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
        tetrahedra = np.einsum("ij,ij->i", corners[:, 0], across) / 6
        missing_mm3 = wanted_mm3 - np.bincount(part_of_face, tetrahedra, len(wanted_mm3))
        if (np.abs(missing_mm3) <= _VOLUME_TOLERANCE * wanted_mm3).all():
            break
        area_mm2 = np.bincount(part_of_face, np.linalg.norm(across, axis=1) / 2, len(wanted_mm3))
        moved_mm += missing_mm3 / np.maximum(area_mm2, np.finfo(float).tiny)
    return trimesh.Trimesh(points, mesh.faces, process=False)


def _write(path: Path, content: bytes) -> None:
    with replacing(path) as beside:
        beside.write_bytes(content)
