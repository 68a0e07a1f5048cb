"""What the docs say is true: Python runs, commands parse, the Dockerfile installs what the README asks for."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from medseg.cli.verbs import app

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
_END_OF_COMMAND = re.compile(r"\s#|&&|\||;|>")


def test_the_python_of_the_api_page_runs_from_top_to_bottom(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (ROOT / "docs" / "python_api.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    assert len(blocks) > 5
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {"__name__": "python_api"}
    for number, block in enumerate(blocks, start=1):
        exec(compile(block, f"block {number} of python_api.md", "exec"), names)
    results = tmp_path / "results"
    assert len(list(results.glob("*_seg.nii.gz"))) == 2
    assert (results / "scores.csv").is_file() and (results / "review.html").is_file()
    assert list((results / "export").rglob("*.seg.nrrd")) and list((results / "export").rglob("*.ply"))


def _lines_of(text: str) -> list[str]:
    """Whole commands: lines of code blocks that call medseg."""
    return re.findall(r"^ {4,}(?:[\w./]*/)?medseg (.+)$", text, re.MULTILINE)


def _mentions_in(text: str) -> list[str]:
    """Commands in the text: they may leave out arguments, but no verb and no option may be invented."""
    without_blocks = re.sub(r"^( {4,}|```).*$", "", text, flags=re.MULTILINE)
    return [" ".join(span.split()) for span in re.findall(r"`(?:[\w./]*/)?medseg ([a-z][^`]*)`", without_blocks)]


def _words(command: str) -> list[str]:
    return shlex.split(_END_OF_COMMAND.split(command, maxsplit=1)[0])


def _parse(words: list[str]) -> str:
    """Parse a command without running it, and give its verb; wrong usage raises."""
    verbs = get_command(app)
    verb = verbs.commands[words[0]]  # type: ignore[attr-defined]
    with verb.make_context(words[0], words[1:]) as context:
        return str(context.info_name)


def _unknown(words: list[str]) -> set[str]:
    """Options that the verb of a command does not have; arguments may be left out."""
    verb = get_command(app).commands[words[0]]  # type: ignore[attr-defined]
    known = {name for option in verb.params for name in (*option.opts, *option.secondary_opts)} | {"--help"}
    given = {word.partition("=")[0] for word in words[1:] if re.match(r"--?[a-z]", word)}
    return given - known


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_every_command_of_a_page_parses(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for command in _lines_of(text):
        words = _words(command)
        if "..." in words:
            assert not _unknown([word for word in words if word != "..."]), command
        else:
            assert _parse(words) == words[0]
    for command in _mentions_in(text):
        if not command.startswith("--"):
            assert not _unknown([word for word in _words(command) if word != "..."]), command


def test_commands_are_found_and_wrong_ones_are_noticed() -> None:
    assert sum(len(_lines_of(page.read_text(encoding="utf-8"))) for page in PAGES) > 30
    assert sum(len(_mentions_in(page.read_text(encoding="utf-8"))) for page in PAGES) > 30
    text = "Say `medseg score OUT\nREFERENCES --regoin brain`:\n\n    .venv/bin/medseg sgement scan.nii.gz  # now\n"
    assert _mentions_in(text) == ["score OUT REFERENCES --regoin brain"]
    assert _lines_of(text) == ["sgement scan.nii.gz  # now"]
    assert _unknown(_words(_mentions_in(text)[0])) == {"--regoin"}
    with pytest.raises(KeyError, match="sgement"):
        _parse(_words(_lines_of(text)[0]))
    with pytest.raises(Exception, match="No such option"):
        _parse(["segment", "scan.nii.gz", "-o", "out", "--fast"])
    with pytest.raises(Exception, match="Missing"):
        _parse(["segment", "scan.nii.gz"])


def test_the_dockerfile_installs_the_system_packages_that_the_readme_and_the_prerequisites_name() -> None:
    steps = (ROOT / "Dockerfile").read_text(encoding="utf-8").replace("\\\n", " ")
    (line,) = re.findall(r"apt-get install (.*?)&&", steps)
    installed = {word for word in line.split() if not word.startswith("-")}
    (asked,) = re.findall(r"sudo apt install ([^`]+)`", (ROOT / "README.md").read_text(encoding="utf-8"))
    assert installed == set(asked.split())
    script = (ROOT / ".ci" / "prerequisites").read_text(encoding="utf-8")
    needed = {name for names in re.findall(r'missing "[^"]+" "([^"]+)"', script) for name in names.split()}
    assert needed and installed == needed
    assert ".ci/prerequisites" in steps and "pip install" in steps


def test_the_dockerfile_copies_what_the_build_needs_and_runs_as_a_user() -> None:
    steps = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    assert re.search(r"^USER (?!root)\w+$", steps, re.MULTILINE)
    kept = re.findall(r"^!(\S+)$", (ROOT / ".dockerignore").read_text(encoding="utf-8"), re.MULTILINE)
    assert {"medseg", "configs", "data_templates", "README.md", "LICENSE", "pyproject.toml"} <= set(kept)
    assert all((ROOT / name).exists() for name in kept)
