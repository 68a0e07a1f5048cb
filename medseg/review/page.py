"""This file puts the review page together: template, style, viewer, scripts, data and blobs become HTML files.

The page is self-contained: its Content-Security-Policy forbids the network and runs only the scripts whose hashes it
names. Data stand in elements that no browser executes, as JSON in which nothing can end the element, and as base64.
Blobs are streamed from their files, so that a page needs no more memory than its text.
"""

from __future__ import annotations

import base64
import hashlib
import json
import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from importlib import resources
from pathlib import Path
from typing import Any, BinaryIO

from medseg import __version__
from medseg.files import replacing

_log = logging.getLogger(__name__)

SOFTWARE = f"medseg {__version__}"
"""What pages and decisions name as their maker."""
GENERATOR = '<meta name="generator" content="medseg review">'
"""By which a page of an earlier review is known."""
_VIEWER = "niivue.umd.js"
_MAIN_SCRIPT = "page.js"
"""Comes last; the other scripts only declare."""
_PLACEHOLDER = re.compile(r"/\*STYLE\*/|/\*NIIVUE\*/|/\*PAGE\*/")
_DATA = "<!--DATA-->"
_INLINE = re.compile(r"<(script|style)>(.*?)</\1>", re.DOTALL)
_CHUNK_BYTES = 3 << 18
"""Of a blob; a multiple of three, so that pieces of base64 join without padding."""
_INDEX_STYLE = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:50rem;margin:2rem auto;padding:0 1rem}li{margin:.3rem 0}"
)


class PageText:
    """The text of the page before and behind the place of the data.

    Args:
        served: whether blobs come from the server of the page instead of from the page.
    """

    def __init__(self, *, served: bool) -> None:
        text = _joined(_viewer_folder(), own_scripts(_viewer_folder()), _viewer())
        self.policy = content_policy(text, served=served)
        meta = f'<meta http-equiv="Content-Security-Policy" content="{self.policy}">\n{GENERATOR}'
        self.before, data, self.behind = text.replace("<!--CSP-->", meta, 1).partition(_DATA)
        if not data:
            raise ValueError(f"page.html must hold {_DATA}")

    @property
    def bytes(self) -> int:
        """Length of both parts in UTF-8."""
        return len(self.before.encode()) + len(self.behind.encode())


def page_around(data: str, package: str, shared: Sequence[str] = ()) -> str:
    """A page whose data lie in it, from the `page.html`, `page.css` and scripts of a package, in the look of all pages.

    Args:
        data: JSON, as `as_script_json` writes it.
        package: in which the parts lie.
        shared: scripts of the review page that it needs, too.
    """
    folder = Path(str(resources.files(package)))
    text = _joined(folder, [*(_viewer_folder() / name for name in shared), *own_scripts(folder)])
    # The data are no script that runs, so the policy need not name them.
    meta = f'<meta http-equiv="Content-Security-Policy" content="{content_policy(text, served=False)}">'
    element = f'<script type="application/json" id="medseg-data">{data}</script>'
    return text.replace("<!--CSP-->", meta, 1).replace(_DATA, element, 1)


def content_policy(text: str, *, served: bool) -> str:
    """The Content-Security-Policy of a page: its own inline scripts and styles by their hashes, and nothing else.

    Args:
        text: the page, with newlines as a browser reads them.
        served: whether the page may fetch from where it came.
    """
    hashes: dict[str, list[str]] = {"script": [], "style": []}
    for tag, content in _INLINE.findall(text):
        digest = hashlib.sha256(content.encode()).digest()
        hashes[tag].append(f"'sha256-{base64.b64encode(digest).decode()}'")
    rules = {
        "default-src": "'none'",
        "script-src": " ".join(hashes["script"]) or "'none'",
        "style-src": " ".join(hashes["style"]) or "'none'",
        "img-src": "data:",
        "connect-src": "'self'" if served else "'none'",
        "base-uri": "'none'",
        "form-action": "'none'",
    }
    return "; ".join(f"{name} {value}" for name, value in rules.items())


def as_script_json(content: Any) -> str:
    r"""JSON that can stand inside a script element: no text in it can end the element or begin another.

    Example:
        >>> print(as_script_json({"case": "</script>&"}))
        {"case": "\u003c/script\u003e\u0026"}
    """
    text = json.dumps(content, ensure_ascii=False, allow_nan=False)
    for letter in "<>&\u2028\u2029":  # they occur in strings only
        text = text.replace(letter, f"\\u{ord(letter):04x}")
    return text


def write_page(
    path: Path,
    text: PageText,
    head: Mapping[str, Any],
    cases: Iterator[Mapping[str, Any]],
    blobs: Sequence[tuple[str, Path]] = (),
) -> None:
    """Write one page.

    Args:
        path: where to.
        text: of the page.
        head: the data of the page but for `cases`.
        cases: the data of one case after the other.
        blobs: name and file of each blob; none where they are served.
    """
    with replacing(path) as beside, beside.open("wb") as stream:
        stream.write(text.before.encode())
        stream.write(b'<script type="application/json" id="medseg-data">')
        stream.write(as_script_json(head)[:-1].encode() + b', "cases": [')
        for number, case in enumerate(cases):
            stream.write((b", " if number else b"") + as_script_json(case).encode())
        stream.write(b"]}</script>\n")
        for name, blob in blobs:
            stream.write(f'<script type="application/octet-stream" id="{escape(name)}">'.encode())
            _copy_base64(blob, stream)
            stream.write(b"</script>\n")
        stream.write(text.behind.encode())


def write_index(path: Path, title: str, parts: Sequence[tuple[str, Sequence[tuple[int, str, str]]]]) -> None:
    """Write the page that links the parts of a review.

    Args:
        path: where to.
        title: of the review.
        parts: file name of each part, with rank, shown name and strongest reason of its cases.
    """
    sections = []
    for file, cases in parts:
        items = "".join(f'<li value="{rank}">{escape(label)}: {escape(reason)}</li>' for rank, label, reason in cases)
        sections.append(f'<h2><a href="{escape(file)}">{escape(file)}</a></h2><ol>{items}</ol>')
    body = (
        f"<h1>{escape(title)}</h1><p>Research use only. Not for diagnosis.</p><p>The cases lie in {len(parts)} pages, "
        f"which must stay beside this one. Cases that most deserve a look come first.</p>{''.join(sections)}"
    )
    head = f"<title>{escape(title)}</title>\n<style>{_INDEX_STYLE}</style>"
    meta = f'<meta http-equiv="Content-Security-Policy" content="{content_policy(head, served=False)}">'
    with replacing(path) as beside:
        beside.write_text(
            f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8">\n{meta}\n{GENERATOR}\n{head}</head>\n'
            f"<body>{body}</body></html>\n",
            encoding="utf-8",
            newline="\n",
        )


def is_review_page(path: Path) -> bool:
    """Whether a file is a page that was written here."""
    try:
        with path.open("rb") as stream:
            return GENERATOR.encode() in stream.read(4096)
    except OSError:
        return False


def base64_bytes(count: int) -> int:
    """How long so many bytes are as base64."""
    return (count + 2) // 3 * 4


def own_scripts(folder: Path) -> list[Path]:
    """The page's own scripts, the one that starts it last."""
    scripts = [path for path in sorted(folder.glob("*.js")) if path.name != _VIEWER]
    return sorted(scripts, key=lambda path: path.name == _MAIN_SCRIPT)


def _joined(folder: Path, scripts: Sequence[Path], viewer: str = "") -> str:
    """The page of a folder with the look of all pages, its own style and its scripts in it."""
    parts = {
        "/*STYLE*/": _text(_review_folder() / "look.css") + _text(folder / "page.css"),
        "/*NIIVUE*/": _as_inline(viewer),
        "/*PAGE*/": _as_inline("\n".join(map(_text, scripts))),
    }
    return _PLACEHOLDER.sub(lambda found: parts[found[0]], _text(folder / "page.html"))


def _review_folder() -> Path:
    return Path(str(resources.files("medseg.review")))


def _viewer_folder() -> Path:
    return _review_folder() / "viewer"


def _viewer() -> str:
    """NiiVue's script; without it, slices, drawing and decisions work all the same."""
    path = _viewer_folder() / _VIEWER
    if not path.is_file():
        _log.warning(
            "the page goes without its 3-D view: NiiVue was not fetched when medseg was installed; install medseg "
            "again where npm reaches its registry"
        )
        return ""
    return _text(path)


def _text(path: Path) -> str:
    """A file as a browser reads it: every kind of newline is one letter, or the hashes would not fit."""
    return path.read_text(encoding="utf-8")


def _as_inline(script: str) -> str:
    """A script that cannot end its element, nor hide the end of it; in strings and patterns the meaning is the same."""
    return re.sub(r"</(?=script)", r"<\\/", script, flags=re.IGNORECASE).replace("<!--", "<\\!--")


def _copy_base64(path: Path, stream: BinaryIO) -> None:
    with path.open("rb") as source:
        while chunk := source.read(_CHUNK_BYTES):
            stream.write(base64.b64encode(chunk))
