"""This file loads the commands in `scripts/` for tests."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

SCRIPTS = Path(__file__).parent.parent / "scripts"


def module_of(name: str) -> ModuleType:
    """The module of a script."""
    spec = importlib.util.spec_from_file_location(name, SCRIPTS / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def main_of(name: str) -> Callable[[list[str]], int]:
    """What a script runs, which takes its arguments and gives its exit status."""
    return module_of(name).main
