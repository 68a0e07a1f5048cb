"""What tests that read result folders share."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import NamedTuple


class Results(NamedTuple):
    """A result folder and the scans that it was made of."""

    out: Path
    scans: Path


HOSTILE = "<img src=x onerror=alert(1)>"
"""Name of a case that a careless page would run."""


def copied(results: Results, folder: Path) -> Path:
    """A copy of a result folder that a test may spoil; its `summary.json` still names the scans."""
    return Path(shutil.copytree(results.out, folder / "out"))
