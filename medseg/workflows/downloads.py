"""This file fetches the published checkpoints and data sets, and checks that they stay what they were.

A *record* is a file `NAME.sha256` beside a download, as `sha256sum` writes it. Where the authors
published a hash, a download must have it; elsewhere the hash of the first download is recorded, and
that is said, because it tells only whether the file changed since. Proxies are those of the usual
environment variables (`https_proxy`, `http_proxy`, `no_proxy`).
"""

from __future__ import annotations

import hashlib
import http.client
import logging
import shutil
import ssl
import stat
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from tempfile import TemporaryDirectory
from typing import Any, BinaryIO
from urllib.error import HTTPError, URLError
from urllib.request import build_opener

from medseg.errors import MedsegError
from medseg.files import CannotWriteError, hash_file, replacing, require_folder, write_text

_log = logging.getLogger(__name__)
_STEGO = "https://marhamilresearch4.blob.core.windows.net/stego-public"
_DINO = "https://dl.fbaipublicfiles.com/dino"
_SILENCE_S = 60
"""Seconds without a byte after which a download is given up."""
_CHUNK_BYTES = 1 << 20
_BOMB_RATIO, _BOMB_BYTES = 100, 100 << 20
"""Bytes out for each byte of an archive from which it is one meant to fill the disk; small ones may be as they like."""
_PAGE_STARTS = (b"<!doctype", b"<html", b"<?xml")
"""How an answer begins that is a page of a proxy or a store, and no file."""
_WAYS = "set https_proxy, or bring the file another way and give it with --from FILE"


@dataclass(frozen=True)
class Download:
    """A published file.

    Attributes:
        name: file name.
        folder: where it goes below the chosen folder, as the published scripts have it.
        address: where it is published.
        about: what it is.
        md5_start: the first digits of its MD5, where its authors published them.
        is_readable: whether medseg reads it; pickled programs are fetched when named, and never loaded.
    """

    name: str
    folder: str
    address: str
    about: str
    md5_start: str | None = None
    is_readable: bool = True


def _stego(name: str, about: str) -> Download:
    return Download(name, "saved_models", f"{_STEGO}/saved_models/{name}", about)


def _dino(name: str, about: str) -> Download:
    return Download(f"{name}.pth", "models", f"{_DINO}/{name}/{name}.pth", f"{about}: features.checkpoint")


def _pickled(name: str, folder: str, address: str) -> Download:
    return Download(name, folder, f"{_STEGO}/{address}/{name}", "PiCIE, a pickled program", is_readable=False)


def _archive(name: str, about: str) -> Download:
    return Download(f"{name}.zip", "", f"{_STEGO}/pytorch_data/{name}.zip", about)


MODELS = (
    _stego("cocostuff27_vit_base_5.ckpt", "STEGO on CocoStuff-27, ViT-B/8"),
    _stego("cityscapes_vit_base_1.ckpt", "STEGO on Cityscapes, ViT-B/8"),
    _stego("potsdam_test.ckpt", "STEGO on Potsdam-3, ViT-S/8"),
    _dino("dino_deitsmall8_300ep_pretrain", "DINO ViT-S/8 as STEGO takes it"),
    _dino("dino_deitsmall8_pretrain", "DINO ViT-S/8"),
    _dino("dino_deitsmall16_pretrain", "DINO ViT-S/16"),
    _dino("dino_vitbase8_pretrain", "DINO ViT-B/8"),
    _dino("dino_vitbase16_pretrain", "DINO ViT-B/16"),
    Download(
        "moco_v2_800ep_pretrain.pth.tar",
        "models",
        f"{_STEGO}/models/models/moco_v2_800ep_pretrain.pth.tar",
        "MoCo v2 ResNet-50, for the feature pyramid",
        md5_start="a04e12f8",
    ),
    _pickled("model_epoch_0720_iter_085000.pth", "models", "models/models"),
    _pickled("picie.pkl", "models", "models/models"),
    _pickled("picie_and_probes.pth", "saved_models", "saved_models"),
)
"""What the published download_models.py fetches, and the DINO weights that the program fetches itself."""

DATASETS = (
    _archive("potsdam", "Potsdam tiles, 200 pixels, with lists"),
    _archive("cityscapes", "Cityscapes"),
    _archive("cocostuff", "CocoStuff with the curated lists"),
    _archive("potsdamraw", "Potsdam tiles without lists"),
)
"""What the published download_datasets.py fetches."""


def chosen(names: Sequence[str], known: Sequence[Download]) -> list[Download]:
    """Downloads by file name or stem; no name, or `all`, is everything that medseg reads.

    Raises:
        MedsegError: a name is unknown.
    """
    if not names or list(names) == ["all"]:
        return [item for item in known if item.is_readable]
    by_name = {key: item for item in known for key in (item.name, item.name.partition(".")[0])}
    for name in names:
        if name not in by_name:
            raise MedsegError(f"download must be one of {', '.join(item.name for item in known)}, got {name}")
    return list(dict.fromkeys(by_name[name] for name in names))


def fetch(
    items: Sequence[Download], folder: Path, *, source: Path | None = None, unpack: bool = False
) -> dict[str, Any]:
    """Fetch files that are not there yet, check them, and unpack archives.

    Args:
        items: what to fetch.
        folder: folder above `models` and `saved_models`, or that of the data sets.
        source: a file that was brought here another way; it is copied, checked and recorded like a download.
        unpack: unpack archives beside themselves.

    Returns:
        `lines` for the terminal, `files`, `failed` downloads.

    Raises:
        MedsegError: nothing can be written, or several items are asked of one file.
    """
    if source is not None and len(items) != 1:
        raise MedsegError(f"--from must stand for one download, got {len(items)}; name the one that {source} is")
    require_folder(folder, "folder for it")
    lines: list[str] = []
    failed: dict[str, str] = {}
    files: list[str] = []
    for item in items:
        path = folder / item.folder / item.name
        try:
            lines.append(_have(item, path, source))
            if unpack and path.suffix == ".zip":
                lines.append(unpack_archive(path))
            files.append(str(path))
        except CannotWriteError:
            raise
        except MedsegError as error:
            failed[item.name] = str(error)
            _log.error("%s", error)
    return {"lines": lines, "files": files, "failed": failed}


def unpack_archive(path: Path) -> str:
    """Unpack `NAME.zip` to `NAME/` beside it, all or nothing, and say so; what is there already is left.

    A folder in the archive that holds all the rest becomes `NAME` itself.

    Raises:
        MedsegError: the archive is damaged, leads out of its folder, holds links, or does not fit the disk.
    """
    target = path.with_suffix("")
    if target.exists():
        return f"{target} is there, not unpacked again"
    try:
        with zipfile.ZipFile(path) as archive, TemporaryDirectory(dir=path.parent, prefix=f".{target.name}.") as beside:
            members = archive.infolist()
            for member in members:
                _require_harmless(path, member)
            claimed, stored = sum(member.file_size for member in members), path.stat().st_size
            if claimed > max(_BOMB_RATIO * stored, _BOMB_BYTES):
                raise MedsegError(
                    f"{path} must hold pictures and lists, got {claimed} bytes packed into {stored}; "
                    "do not unpack this archive"
                )
            free = shutil.disk_usage(path.parent).free
            if claimed >= free:
                raise MedsegError(f"{path} must fit the disk, got {claimed} bytes where {free} are free; free space")
            inside = Path(beside) / target.name
            inside.mkdir()
            for member in members:  # an entry never gives more bytes than it says
                archive.extract(member, inside)
            within = list(inside.iterdir())
            whole = within[0] if len(within) == 1 and within[0].is_dir() else inside
            whole.replace(target)
    except (zipfile.BadZipFile, EOFError, NotImplementedError, RuntimeError) as error:
        raise MedsegError(f"{path} must be a whole zip archive, got {error}; delete it and fetch it again") from error
    return f"unpacked {len(members)} entries: {target}"


def _have(item: Download, path: Path, source: Path | None) -> str:
    """Make sure that a file is there and as recorded; return the line that says so."""
    record = path.with_name(f"{path.name}.sha256")
    if path.is_file():
        found, known = hash_file(path), _recorded(record)
        if known is None:
            return _note(item, path, record, found, "was there already")
        if found != known:
            raise MedsegError(
                f"{path} must be as recorded in {record.name}, got another content; delete it, fetch again"
            )
        return f"{path} is there, unchanged since its record"
    known = _recorded(record)
    with replacing(path) as beside:
        if source is None:
            _log.info("fetching %s", item.address)
            _download(item, beside)
        else:
            if not source.is_file():
                raise MedsegError(f"--from must be a file, got {source}; check the path")
            shutil.copyfile(source, beside)
        _require_content(item, beside, source)
        found = hash_file(beside)
        if known is not None and found != known:
            raise MedsegError(
                f"{path.name} must be as recorded in {record}, got another content; delete the record if that is right"
            )
    return _note(item, path, record, found, f"copied from {source}" if source else "downloaded")


def _note(item: Download, path: Path, record: Path, sha256: str, how: str) -> str:
    write_text(record, f"{sha256}  {path.name}\n")
    checked = "its published hash fits" if item.md5_start else "no hash is published: this one is kept and checked"
    return f"{path} {how}; {checked} (SHA-256 {sha256[:16]}...)"


def _recorded(record: Path) -> str | None:
    if not record.is_file():
        return None
    words = record.read_text(encoding="utf-8", errors="replace").split()
    if not words or len(words[0]) != 64:
        raise MedsegError(f"{record} must hold a SHA-256 and a name, got something else; delete it")
    return words[0].lower()


def _download(item: Download, path: Path) -> None:
    """Write what an address answers to a new file; all of it, or an error."""
    try:
        with build_opener().open(item.address, timeout=_SILENCE_S) as answer:
            expected = answer.headers.get("Content-Length")
            with path.open("wb") as stream:
                written = _copy(answer, stream)
    except HTTPError as error:
        raise MedsegError(f"{item.address} must answer, got {error.code} {error.reason}; {_WAYS}") from error
    except (URLError, http.client.HTTPException, ConnectionError, TimeoutError, ssl.SSLError) as error:
        reason = " ".join(str(getattr(error, "reason", error)).split()) or type(error).__name__
        raise MedsegError(f"{item.address} must be in reach, got {reason}; {_WAYS}") from error
    if expected is not None and written != int(expected):
        raise MedsegError(f"{item.address} must come whole, got {written} of {expected} bytes; try again")


def _copy(answer: Any, stream: BinaryIO) -> int:
    written = 0
    while chunk := answer.read(_CHUNK_BYTES):
        stream.write(chunk)
        written += len(chunk)
    return written


def _require_content(item: Download, path: Path, source: Path | None) -> None:
    """Check what was fetched: no page, an archive where one is due, and the published hash."""
    came = source or item.address
    with path.open("rb") as stream:
        start = stream.read(64).lstrip().lower()
    if not start or start.startswith(_PAGE_STARTS):
        raise MedsegError(f"{came} must be {item.name}, got {'a web page' if start else 'an empty file'}; {_WAYS}")
    if item.name.endswith(".zip") and not zipfile.is_zipfile(path):
        raise MedsegError(f"{came} must be a zip archive, got another kind of file; {_WAYS}")
    if item.md5_start:
        with path.open("rb") as stream:
            found = hashlib.file_digest(stream, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
        if not found.startswith(item.md5_start):
            raise MedsegError(
                f"{came} must have the published MD5 {item.md5_start}..., got {found[:8]}...; fetch it from its authors"
            )


def _require_harmless(path: Path, member: zipfile.ZipInfo) -> None:
    """Refuse entries that lead out of the folder, links, and encrypted ones."""
    name = member.filename
    is_outside = (
        PurePosixPath(name).is_absolute()
        or PureWindowsPath(name).anchor != ""
        or ".." in (*PurePosixPath(name).parts, *PureWindowsPath(name).parts)
    )
    kind = stat.S_IFMT(member.external_attr >> 16)
    if is_outside or kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        raise MedsegError(f"{path} must hold plain files below one folder, got {name!r}; do not unpack this archive")
    if member.flag_bits & 1:
        raise MedsegError(f"{path} must not be encrypted, got {name!r}; unpack it yourself")
