"""Nothing that somebody unpacked may reach the rest of the disk: links, and headers that name other files."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import nibabel
import numpy as np
import pytest

from medseg.errors import MedsegError
from medseg.scans.arrays import read_grid
from medseg.scans.conversion import drop_black
from medseg.scans.folders import find_cases
from medseg.scans.readers import read_image
from medseg.scans.walking import walk

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="no right to make links")


def scan(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(np.arange(60, dtype=np.uint8).reshape(3, 4, 5), np.eye(4)), path)
    return path


def ids(source: Path) -> list[str]:
    return [case.case_id for case in find_cases(source).cases]


def test_a_link_out_of_the_folder_is_not_followed_and_that_is_said(tmp_path: Path) -> None:
    source = tmp_path / "scans"
    scan(source / "mine_img.nii")
    (source / "theirs_img.nii").symlink_to(scan(tmp_path / "elsewhere" / "secret.nii"))
    (source / "folder").symlink_to(tmp_path / "elsewhere")
    (source / "up").symlink_to("..")
    listing = find_cases(source)
    assert [case.case_id for case in listing.cases] == ["mine"]
    (note,) = [note for note in listing.notes if "leads out of the folder" in note]
    assert note.endswith("list it in a CSV or give what it points to: folder, up, theirs_img.nii")


def test_a_link_within_the_folder_is_followed(tmp_path: Path) -> None:
    source = tmp_path / "scans"
    scan(source / "stored" / "a.nii")
    (source / "b.nii").symlink_to(source / "stored" / "a.nii")
    (source / "again").symlink_to("stored")
    assert ids(source) == ["a", "b"]
    assert not [note for note in find_cases(source).notes if "leads out" in note]


def test_a_source_may_itself_be_a_link(tmp_path: Path) -> None:
    scan(tmp_path / "real" / "a.nii")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    assert ids(tmp_path / "link") == ["a"]
    (tmp_path / "given").mkdir()
    (tmp_path / "given" / "b_img.nii").symlink_to(tmp_path / "real" / "a.nii")
    assert ids(tmp_path / "given" / "b_img.nii") == ["b"]  # named by the user, so followed


def test_a_table_may_name_a_link(tmp_path: Path) -> None:
    scan(tmp_path / "real" / "a.nii")
    (tmp_path / "given").mkdir()
    (tmp_path / "given" / "b.nii").symlink_to(tmp_path / "real" / "a.nii")
    (tmp_path / "given" / "cases.csv").write_text("image\nb.nii\n", encoding="utf-8")
    assert ids(tmp_path / "given" / "cases.csv") == ["b"]


def test_links_in_circles_end(tmp_path: Path) -> None:
    scan(tmp_path / "a.nii")
    (tmp_path / "self").symlink_to("self")
    (tmp_path / "round").symlink_to(".")
    (tmp_path / "one").symlink_to("two")
    (tmp_path / "two").symlink_to("one")
    assert ids(tmp_path) == ["a"]


def test_a_pipe_is_no_file_and_is_not_waited_for(tmp_path: Path) -> None:
    scan(tmp_path / "a.nii")
    os.mkfifo(tmp_path / "b.nii")
    os.mkfifo(tmp_path / "c_manifest.json")
    found = walk(tmp_path, set())
    assert found.volumes == [tmp_path / "a.nii"]
    assert {path.name for path, reason in found.left_out if "a pipe" in reason} == {"b.nii", "c_manifest.json"}


def test_no_picture_of_elsewhere_is_copied(tmp_path: Path) -> None:
    source = tmp_path / "pictures"
    source.mkdir()
    np.save(source / "mine.npy", np.arange(64, dtype=np.uint8).reshape(8, 8) + 100)
    np.save(tmp_path / "secret.npy", np.arange(64, dtype=np.uint8).reshape(8, 8) + 100)
    (source / "link.npy").symlink_to(tmp_path / "secret.npy")
    drop_black(source, tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["mine.npy"]


@pytest.mark.parametrize("name", [b"caf\xe9.nii", b"a\x1b[2J.nii", b"a\nb.nii", "a\u202eb.nii".encode()])
def test_a_file_name_that_cannot_be_written_down_is_an_error_of_that_case(tmp_path: Path, name: bytes) -> None:
    scan(tmp_path / "good.nii")
    try:
        os.rename(scan(tmp_path / "x.nii"), os.fsencode(tmp_path) + b"/" + name)  # noqa: PTH104
    except OSError:
        pytest.skip("this disk takes no such name")
    listing = find_cases(tmp_path)
    assert [case.case_id for case in listing.cases] == ["good"]
    ((_, problem),) = listing.problems
    assert "must have a name of up to 200 plain characters, got " in problem


# --- headers that name other files

META = """ObjectType = Image
NDims = 3
BinaryData = True
BinaryDataByteOrderMSB = False
DimSize = 6 7 4
ElementType = MET_UCHAR
{}
"""
NRRD = """NRRD0004
type: uint8
dimension: 3
sizes: 6 7 4
encoding: raw
{}
"""
VALUES = np.arange(6 * 7 * 4, dtype=np.uint8)
OUTSIDE = [
    ("x.mhd", "ElementDataFile = ../secret.raw"),
    ("x.mha", "ElementDataFile = ../secret.raw"),
    ("x.mhd", "ElementDataFile = {absolute}"),
    ("x.mhd", "ElementDataFile : ../secret.raw\nElementDataFile = LOCAL"),  # MetaIO takes a colon, too,
    ("x.mhd", "Comment = a\rElementDataFile = ../secret.raw\nElementDataFile = LOCAL"),  # and either newline
    ("x.mhd", "ElementDataFile = link.raw"),
    ("x.mhd", "ElementDataFile = LIST\ns0.raw\n../s1.raw\ns2.raw\ns3.raw"),
    ("x.mhd", "ElementDataFile = ../s%d.raw 0 3 1"),
    ("x.nhdr", "data file: ../secret.raw"),
    ("x.nrrd", "data file: ../secret.raw"),
    ("x.nhdr", "data file: {absolute}"),
    ("x.nhdr", "Data File: ../secret.raw"),
    ("x.nhdr", "datafile: ../secret.raw"),
    ("x.nhdr", "data file: ../secret.raw\ndata file:==ok.raw"),  # the second is a remark
    ("x.nhdr", "# x\rdata file: ../secret.raw\r"),
    ("x.nhdr", "data file: link.raw"),
    ("x.nhdr", "data file: LIST 2\ns0.raw\n\n../s1.raw\ns2.raw\ns3.raw"),
    ("x.nhdr", "data file: ../s%d.raw 0 3 1 2"),
    ("x.mhd", "ElementDataFile = ..\\secret.raw"),
    ("x.mhd", "ElementDataFile = C:\\secret.raw"),
]


@pytest.fixture
def headers(tmp_path: Path) -> Path:
    folder = tmp_path / "given"
    folder.mkdir()
    for place in (tmp_path, folder):
        for number in range(4):
            (place / f"s{number}.raw").write_bytes(VALUES[42 * number :][:42].tobytes())
    (tmp_path / "secret.raw").write_bytes(VALUES.tobytes())
    (folder / "ok.raw").write_bytes(VALUES.tobytes())
    (folder / "link.raw").symlink_to("../secret.raw")
    return folder


def header(folder: Path, name: str, last: str) -> Path:
    path = folder / name
    last = last.replace("{absolute}", str(folder.parent / "secret.raw"))
    path.write_bytes((META if "mh" in name else NRRD).format(last).encode())
    return path


@pytest.mark.parametrize(("name", "last"), OUTSIDE)
def test_a_header_that_names_a_file_of_elsewhere_is_refused(headers: Path, name: str, last: str) -> None:
    path = header(headers, name, last)
    for read in (read_grid, read_image):
        with pytest.raises(MedsegError, match="must have its voxels beside it, got "):
            read(path)


@pytest.mark.parametrize(
    ("name", "last"),
    [
        ("x.mhd", "ElementDataFile = ok.raw"),
        ("x.mhd", "ElementDataFile = ./ok.raw"),
        ("x.mhd", "ElementDataFile = LIST\ns0.raw\ns1.raw\ns2.raw\ns3.raw"),
        ("x.mhd", "ElementDataFile = s%d.raw 0 3 1"),
        ("x.nhdr", "data file: ok.raw"),
        ("x.nhdr", "remark:=../x\n# ../x\ndata file: ok.raw"),
        ("x.nhdr", "data file: LIST\ns0.raw\ns1.raw\ns2.raw\ns3.raw"),
    ],
)
def test_files_beside_a_header_are_read(headers: Path, name: str, last: str) -> None:
    assert np.array_equal(read_image(header(headers, name, last)).numpy().ravel(order="F"), VALUES)


@pytest.mark.parametrize("pattern", ["%s.raw 0 3 1", "%n%n.raw 0 3 1", "s%d%s.raw 0 3 1", "s%*d.raw 0 3 1"])
def test_a_pattern_cannot_reach_printf(headers: Path, pattern: str) -> None:
    with pytest.raises(MedsegError, match="must name its files by one number such as %03d"):
        read_grid(header(headers, "x.mhd", f"ElementDataFile = {pattern}"))


def test_a_linked_header_with_its_linked_voxels_is_read(headers: Path, tmp_path: Path) -> None:
    header(headers, "x.mhd", "ElementDataFile = ok.raw")
    links = tmp_path / "links"
    links.mkdir()
    for name in ("x.mhd", "ok.raw"):
        (links / name).symlink_to(headers / name)
    assert read_grid(links / "x.mhd").shape == (6, 7, 4)


def test_the_partner_of_a_pair_is_no_link_to_elsewhere(tmp_path: Path) -> None:
    folder = tmp_path / "given"
    folder.mkdir()
    nibabel.save(nibabel.Nifti1Pair(VALUES.reshape(6, 7, 4), np.eye(4)), folder / "x.hdr")
    assert read_image(folder / "x.hdr").shape == (1, 6, 7, 4)
    (folder / "x.img").rename(tmp_path / "secret.img")
    (folder / "x.img").symlink_to("../secret.img")
    with pytest.raises(MedsegError, match="must have its partner beside it, got the link"):
        read_image(folder / "x.hdr")
