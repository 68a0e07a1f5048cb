"""What a file holds is read, never run; nothing is told to anybody; results are as open as the user's umask says."""

from __future__ import annotations

import ast
import io
import os
import pickle
import re
import socket
import struct
import sys
import warnings
import zipfile
from pathlib import Path

import av
import nibabel
import numpy as np
import pytest
import scipy.io
import torch
from PIL import Image

import medseg
from medseg.cli import run
from medseg.errors import MedsegError
from medseg.phantoms.vessels import write_phantoms
from medseg.scans import picture_files
from medseg.scans.picture_files import iterate_pages, read_frames, read_header

PACKAGE = Path(medseg.__file__).parent
MODULES = sorted(PACKAGE.rglob("*.py"))


class Payload:
    """Unpickled, it makes a file."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, ("HIT",)


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def require_not_run(folder: Path) -> None:
    assert not (folder / "HIT").exists()


def test_the_payload_works(place: Path) -> None:
    pickle.loads(pickle.dumps(Payload()))
    assert (place / "HIT").is_dir()


# --- what could run something, in the whole package

# Calls that need a look, and what makes them harmless.
FORBIDDEN = re.compile(
    r"(^|\.)(eval|exec|compile|__import__|system|popen|execv\w*|spawn\w*|Popen|check_output|check_call|extractall"
    r"|unpack_archive|urlopen|urlretrieve|unsafe_load|full_load|load_all|loadmat)$"
    r"|^(pickle|cPickle|dill|joblib|marshal|shelve|subprocess|tarfile|requests|httpx|socket)\."
    r"|^(yaml|np|numpy|torch)\.(load|save_all)$"
)
HARMLESS = {
    "features/checkpoints.py": {"pickle.Unpickler"},  # every class but tensors becomes a stub
    "scans/contained.py": {"pickle.dumps", "pickle.loads", "subprocess.Popen"},  # to a worker, never from it
    "scans/picture_arrays.py": {"scipy.io.loadmat"},  # gives numbers; objects are not asked for by name
    "workflows/downloads.py": {"unpack_archive"},  # our own, which checks every entry
    "workflows/sweep_jobs.py": {"subprocess.Popen"},  # medseg itself, without a shell
}


def _name(node: ast.expr) -> str:
    if isinstance(node, ast.Attribute):
        return f"{_name(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""


def _is_harmless(call: ast.Call, name: str) -> bool:
    words = {word.arg: word.value for word in call.keywords}
    says = lambda word, value: isinstance(words.get(word), ast.Constant) and words[word].value is value  # noqa: E731
    if name == "torch.load":
        return says("weights_only", True)
    if name in ("np.load", "numpy.load"):  # which reads no objects unless told to
        return "allow_pickle" not in words or says("allow_pickle", False)
    return name.endswith(".eval") and not call.args  # a network that stops training


@pytest.mark.parametrize("module", MODULES, ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_no_module_runs_what_a_file_holds(module: Path) -> None:
    tree = ast.parse(module.read_text(encoding="utf-8"))
    calls = [(_name(node.func), node) for node in ast.walk(tree) if isinstance(node, ast.Call)]
    found = {name for name, call in calls if FORBIDDEN.search(name) and not _is_harmless(call, name)}
    found -= {name for name in found if name.startswith("re.")}  # re.compile
    assert found <= HARMLESS.get(module.relative_to(PACKAGE).as_posix(), set())


def test_the_sweep_would_find_them() -> None:
    for line in (
        "pickle.load(f)", "torch.load(p)", "torch.load(p, weights_only=False)", "np.load(p, allow_pickle=True)",
        "yaml.load(t)", "eval(t)", "os.system(t)", "archive.extractall()", "subprocess.run(t)", "joblib.load(p)",
        "tarfile.open(p)", "yaml.unsafe_load(t)",
    ):  # fmt: skip
        (call,) = [node for node in ast.walk(ast.parse(line)) if isinstance(node, ast.Call)]
        assert FORBIDDEN.search(_name(call.func)) and not _is_harmless(call, _name(call.func)), line
    for line in ("model.eval()", "torch.load(p, weights_only=True)", "np.load(p)", "np.load(p, allow_pickle=False)"):
        (call,) = [node for node in ast.walk(ast.parse(line)) if isinstance(node, ast.Call)]
        assert not FORBIDDEN.search(_name(call.func)) or _is_harmless(call, _name(call.func)), line


# --- arrays


def npy(path: Path, header: str, data: bytes = bytes(100)) -> Path:
    text = header.encode() + b"\n"
    path.write_bytes(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + data)
    return path


ARRAYS = {
    "pickle": lambda path: path.write_bytes(pickle.dumps(Payload())),
    "objects": lambda path: np.save(path, np.array([[Payload()]], object), allow_pickle=True),
    "archive": lambda path: _archive(path),
    "sixty_thousand": lambda path: npy(path, "{'descr': '<f4', 'fortran_order': False, 'shape': (60000, 60000)}"),
    "overflow": lambda path: npy(path, f"{{'descr': '<f4', 'fortran_order': False, 'shape': ({2**62}, {2**62})}}"),
    "negative": lambda path: npy(path, "{'descr': '<f4', 'fortran_order': False, 'shape': (-4, -5)}"),
    "nothing_each": lambda path: npy(path, "{'descr': '|V0', 'fortran_order': False, 'shape': (60000, 60000)}"),
    "nested": lambda path: npy(path, "(" * 4000),
    "signs": lambda path: npy(path, "-" * 9000),
    "open_bracket": lambda path: npy(path, "{(("),
    "code": lambda path: npy(path, "__import__('os').mkdir('HIT')"),
    "fields": lambda path: npy(path, "{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (2, 2)}"),
}


def _archive(path: Path) -> None:
    stream = io.BytesIO()
    np.savez(stream, img=np.zeros((3, 3)))
    path.write_bytes(stream.getvalue())


@pytest.mark.parametrize("kind", ARRAYS)
def test_an_array_that_is_none_is_one_line_and_nothing_runs(kind: str, place: Path) -> None:
    path = place / "x.npy"
    ARRAYS[kind](path)
    with pytest.raises(MedsegError, match="must ") as caught:
        read_frames(path)
    assert "\n" not in str(caught.value)
    require_not_run(place)


def test_objects_in_a_matlab_file_are_not_read(place: Path) -> None:
    path = place / "x.mat"
    for value in (np.array([["cell", 3]], object), {"a": 1}, "text"):
        scipy.io.savemat(path, {"img": value})
        with pytest.raises(MedsegError, match="must hold one array"):
            read_frames(path)


def test_a_matlab_file_cannot_claim_more_than_it_holds(place: Path) -> None:
    path = place / "x.mat"
    scipy.io.savemat(path, {"img": np.ones((40, 40))})
    whole = path.read_bytes()
    size = struct.pack("<ii", 40, 40)
    path.write_bytes(whole.replace(size, struct.pack("<ii", 2**30, 2**30), 1))
    with pytest.raises(MedsegError, match="its header claims"):
        read_header(path)
    element = struct.pack("<II", 9, 40 * 40 * 8)
    assert whole.count(element) == 1
    path.write_bytes(whole.replace(element, struct.pack("<II", 9, 0xFFFFFFF0)))
    with pytest.raises(MedsegError, match="must be a whole MATLAB file"):
        read_frames(path)


# --- pictures and videos


def test_a_page_larger_than_the_first_is_measured_before_it_is_read(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(picture_files, "MOST_PIXELS", 5000)
    pages = [Image.fromarray(np.full((side, side), 9, np.uint8)) for side in (8, 80)]
    pages[0].save(place / "x.tif", save_all=True, append_images=pages[1:])
    assert read_header(place / "x.tif").frames == 2
    with pytest.raises(MedsegError, match="must have at most 5000 pixels in every frame"):
        list(iterate_pages(place / "x.tif"))
    gif = [Image.fromarray(np.full((8, 8), value, np.uint8)) for value in (10, 200)]
    gif[0].save(place / "x.gif", save_all=True, append_images=gif[1:])
    content = (place / "x.gif").read_bytes()
    second = content.rindex(b"\x2c\0\0\0\0")
    (place / "x.gif").write_bytes(content[: second + 5] + struct.pack("<HH", 80, 80) + content[second + 9 :])
    before = Image.MAX_IMAGE_PIXELS
    with pytest.raises(MedsegError, match="must have at most 5000 pixels in every frame"):
        list(iterate_pages(place / "x.gif"))
    assert before == Image.MAX_IMAGE_PIXELS  # which is everyone's


def video(path: Path, container: str = "mpegts") -> Path:
    with av.open(str(path), "w", format=container) as written:
        stream = written.add_stream("mpeg2video" if container == "mpegts" else "mpeg4", rate=5)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for value in (0, 80, 160):
            frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), value, np.uint8), format="rgb24")
            for packet in stream.encode(frame):
                written.mux(packet)
        for packet in stream.encode():
            written.mux(packet)
    return path


@pytest.mark.parametrize(
    "text",
    [
        "ffconcat version 1.0\nfile 'secret.ts'\n",
        "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nsecret.ts\n#EXT-X-ENDLIST\n",
        "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nhttp://127.0.0.1:9/a.ts\n#EXT-X-ENDLIST\n",
    ],
)
def test_a_playlist_called_a_video_opens_no_other_file(text: str, place: Path) -> None:
    video(place / "secret.ts")
    (place / "x.avi").write_text(text, encoding="utf-8")
    with pytest.raises(MedsegError, match="must be a whole video that FFmpeg reads"):
        read_header(place / "x.avi")


@pytest.mark.skipif(sys.platform == "win32", reason="no such names")
def test_a_video_whose_name_looks_like_an_address_is_a_file(place: Path) -> None:
    assert read_header(video(place / "concat:a%d.mp4", "mp4")).frames == 3
    assert read_header(Path("concat:a%d.mp4")).frames == 3


def test_frames_of_several_sizes_are_no_video(place: Path) -> None:
    from fractions import Fraction

    with av.open(str(place / "x.avi"), "w", format="avi") as written:
        stream = written.add_stream("mjpeg", rate=5)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuvj420p"
        for number, side in enumerate((48, 56)):
            picture = io.BytesIO()
            Image.fromarray(np.full((side, 64, 3), 99, np.uint8)).save(picture, "JPEG")
            packet = av.Packet(picture.getvalue())
            packet.stream, packet.pts, packet.dts, packet.time_base = stream, number, number, Fraction(1, 5)
            written.mux(packet)
    for read in (read_frames, lambda path: list(iterate_pages(path))):
        with pytest.raises(MedsegError, match="must have frames of one size"):
            read(place / "x.avi")


# --- what else a user may be handed


def hostile(name: str) -> bytes:
    if name.endswith((".yaml", ".yml")):
        return b"!!python/object/apply:os.mkdir [HIT]\n"
    if name.endswith((".json", ".csv")):
        return b"{\"training\": \"__import__('os').mkdir('HIT')\"}"
    if name.endswith(".ckpt"):
        stream = io.BytesIO()
        with zipfile.ZipFile(stream, "w") as archive:
            archive.writestr("archive/data.pkl", pickle.dumps({"state_dict": {"a": Payload()}}))
            archive.writestr("archive/version", "3")
        return stream.getvalue()
    return pickle.dumps(Payload())


@pytest.mark.parametrize(
    "name",
    ["x.nii", "x.nii.gz", "x.nrrd", "x.mha", "x.dcm", "x.zip", "x.png", "x.npy", "x.mat", "x.mp4", "x.json", "x.csv"],
)
def test_a_pickle_under_any_name_is_one_line(name: str, place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (place / name).write_bytes(hostile(name))
    assert run(["info", name]) == 1
    assert capsys.readouterr().err.startswith("medseg: ")
    require_not_run(place)


def test_a_config_classes_or_run_that_names_code_is_one_line(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    nibabel.save(nibabel.Nifti1Image(np.arange(60, dtype=np.int16).reshape(3, 4, 5), np.eye(4)), place / "s.nii")
    (place / "bad.yaml").write_bytes(hostile("bad.yaml"))
    (place / "run").mkdir()
    (place / "run" / "run.yaml").write_bytes(hostile("run.yaml"))
    for arguments in (
        ["train", "bad.yaml", "--scans", "s.nii", "--run", "r"],
        ["info", "run"],
        ["train", "tof_mra_bank", "--scans", "s.nii", "--run", "r", "--set", "run.seed=!!python/name:os.mkdir ''"],
        ["segment", "s.nii", "-o", "o", "--config", "bad.yaml"],
    ):
        assert run(arguments) == 1, arguments
        said = capsys.readouterr().err
        assert said.startswith("medseg: ") and said.count("\n") == 1
    require_not_run(place)


@pytest.mark.parametrize("name", ["x.ckpt", "x.pth", "x.safetensors"])
def test_weights_that_name_code_are_refused(name: str, place: Path) -> None:
    from medseg.features.checkpoints import read_checkpoint
    from medseg.records import read_state

    (place / name).write_bytes(hostile(name))
    for read in (read_state,) if name == "x.ckpt" else (read_state, read_checkpoint):
        with warnings.catch_warnings(action="ignore"), pytest.raises(MedsegError, match="must "):
            read(place / name)
    if name == "x.ckpt":  # whose tensors may be taken, while every other class becomes a stub
        read_checkpoint(place / name)
    torch.save({"state": Payload()}, place / "last.pt")
    with pytest.raises(MedsegError, match="must be a checkpoint"):
        read_state(place / "last.pt")
    require_not_run(place)


# --- one whole verb


@pytest.fixture(scope="module")
def scan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scan")
    write_phantoms(folder, cases=1, seed=5, shape=(36, 32, 28), spacing=(0.7, 0.7, 0.8))
    source = next(folder.glob("*_img.nii.gz"))
    image = nibabel.load(source)
    image.header["descrip"] = b"MEIER^ANNA 1961"
    nibabel.save(image, source)
    return source


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX only")
def test_a_verb_tells_nobody_and_writes_what_the_umask_allows_without_names(
    scan: Path, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*arguments: object, **_: object) -> None:
        raise AssertionError(f"a connection to {arguments}")

    for name in ("connect", "connect_ex", "sendto"):
        monkeypatch.setattr(socket.socket, name, refuse)
    for name in ("getaddrinfo", "create_connection", "gethostbyname"):
        monkeypatch.setattr(socket, name, refuse)
    before = os.umask(0o027)
    try:
        assert run(["segment", str(scan), "-o", "out", "--method", "flux", "-q"]) == 0
    finally:
        os.umask(before)
    written = [place / "out", *(place / "out").rglob("*")]
    assert len(written) > 8
    for path in written:
        assert path.stat().st_mode & 0o777 == (0o750 if path.is_dir() else 0o640), path
        if path.is_file():
            content = path.read_bytes()
            content = nibabel.load(path).header.binaryblock if path.name.endswith(".nii.gz") else content
            assert b"MEIER" not in content and b"1961" not in content, path


def test_the_hub_is_not_told_who_asks() -> None:
    from huggingface_hub import constants

    assert constants.HF_HUB_DISABLE_TELEMETRY
