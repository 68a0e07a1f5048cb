"""This file reads the command lines and config files of the published STEGO program for the scripts.

A *request* is what such a command asks for: medseg's config, overrides and folders, and what the
script itself has to do. Options are written `key=value` as Hydra has them or `--key value`; medseg's
own keys have a dot (`stego.steps=300`) and are applied last, so they win.
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from medseg.config import CHANGEABLE_AFTER_TRAINING
from medseg.errors import MedsegError
from medseg.files import hash_content, hash_file, load_yaml
from medseg.runs import open_run
from medseg.scans.picks import Pick
from medseg.workflows.intake import Intake
from medseg.workflows.published_options import OPTIONS, translate

_log = logging.getLogger(__name__)
_DEFAULT_CONFIG = "pictures_dino"
"""The published recipe; `pictures` needs no weights from elsewhere."""
CHANGEABLE = tuple(f"{section}." for section in (*CHANGEABLE_AFTER_TRAINING, "run"))
"""How overrides begin that a trained run takes."""
_SECTIONS = {"knns": "train", "crop": "train"}
"""Commands that read the section of another one, in files that have one a command."""
_HYDRA = ("hydra", "defaults", "crop_knn")
"""Parts of a published file that steer its loader, not the program."""


@dataclass(frozen=True)
class Request:
    """What a command asks for.

    Attributes:
        config: a config file or a shipped name.
        overrides: `section.key=value`; the translated options first, then medseg's own.
        own_overrides: medseg's own among them.
        scans: folder to read, where the command named one.
        run: run folder, where the command named one or its options give one.
        out: result folder, likewise.
        intake: what to take of files that hold several volumes.
        scheme: what labels mean: a shipped scheme or a classes.yaml, where the command says it.
        actions: what is left to the script: models, switches, numbers.
    """

    config: str
    overrides: tuple[str, ...]
    own_overrides: tuple[str, ...]
    scans: Path | None
    run: Path | None
    out: Path | None
    intake: Intake
    scheme: str | None
    actions: Mapping[str, Any]

    def required_scans(self) -> Path:
        """The folder to read.

        Raises:
            MedsegError: the command names none.
        """
        if self.scans is None:
            raise MedsegError(
                "images must be given, got none; write --scans FOLDER, or pytorch_data_dir=... dir_dataset_name=..."
            )
        return self.scans


def read_request(arguments: Sequence[str], command: str, about: str) -> Request:
    """Read a command line of the published program.

    Args:
        arguments: what stands behind the script's name.
        command: one of `published_options.COMMANDS`.
        about: the help's first lines.

    Raises:
        MedsegError: an option is unknown, refused or mistyped, or the config file cannot be read.
    """
    asked, rest = _parser(command, about).parse_known_args(list(arguments))
    from_file = read_config_file(asked.config_file, command) if asked.config_file else {}
    typed, own = _split(rest)
    meant = translate({**from_file, **typed}, command, from_file=set(from_file) - set(typed))
    for note in meant.notes:
        _log.info("%s", note)
    actions = dict(meant.actions)
    scheme = actions.pop("scheme", None)
    given = {name: getattr(asked, name) or actions.pop(name, None) for name in ("scans", "run", "out")}
    return Request(
        config=asked.config, overrides=(*meant.overrides, *own), own_overrides=own,
        intake=Intake(Pick(frame=asked.frame)), scheme=asked.scheme or scheme, actions=actions,
        **given,
    )  # fmt: skip


def read_config_file(path: Path, command: str) -> dict[str, str]:
    """The options of a published YAML file as they are written, without what steers Hydra.

    A file may also hold one section a command (`train:`, `eval:`, `demo:`) and a section `dataset:`, as
    forks of the program do; their options then count like the others.

    Raises:
        MedsegError: it is no such file.
    """
    try:
        # BaseLoader builds nothing but strings, lists and mappings, and leaves `5e-4` and `None` as written.
        content = load_yaml(path.read_text(encoding="utf-8"), yaml.BaseLoader)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())
        raise MedsegError(f"{path} must be a readable YAML file, got {reason}; check --config_file") from error
    if not isinstance(content, dict):
        raise MedsegError(f"{path} must hold options, got {type(content).__name__}; check --config_file")
    options: dict[str, str] = {}
    sections = {"dataset", command, _SECTIONS.get(command, command)}
    for name, value in content.items():
        if isinstance(value, dict) and name in sections:
            options |= {key: _text(inner) for key, inner in value.items() if key not in _HYDRA}
        elif not isinstance(value, dict) and name not in _HYDRA:
            options[name] = _text(value)
    return options


def run_of(model: Path, request: Request) -> Path:
    """The run folder of a model; a STEGO checkpoint becomes one below `checkpoints/imported`, once.

    The folder's name has the hash of the file and of what was asked for, so another file or wish is another run.

    Raises:
        MedsegError: the model is no run and no checkpoint that can be read.
    """
    if not model.is_file():
        open_run(model)  # says what is wrong where there is none
        return model
    from medseg.workflows.importing import import_stego

    once = [entry for entry in request.own_overrides if not entry.startswith(CHANGEABLE)]
    run = request.actions["imported"] / f"{model.stem}_{hash_content([hash_file(model), request.config, once])[:8]}"
    if not (run / "run.yaml").is_file():
        for line in import_stego(model, run, config=request.config, overrides=once)["lines"]:
            _log.info("%s", line)
    return run


def later_overrides(request: Request) -> tuple[str, ...]:
    """The overrides that a trained run still takes."""
    return tuple(entry for entry in request.overrides if entry.startswith(CHANGEABLE))


def _parser(command: str, about: str) -> argparse.ArgumentParser:
    rows = [row for row in OPTIONS if command in row.commands]
    width = max(len(row.name) for row in rows)
    table = "\n".join(f"  {row.name:{width}}  {'' if row.read else 'refused: '}{row.says}" for row in rows)
    parser = argparse.ArgumentParser(
        description=about,
        epilog=f"options of the published program, as key=value or --key value:\n{table}\n\n"
        "medseg's own: section.key=value, such as stego.steps=300",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--config", default=_DEFAULT_CONFIG, help="medseg's config: a file or a shipped name")
    parser.add_argument("--config_file", type=Path, metavar="YAML", help="a config file of the published program")
    parser.add_argument("--scans", type=Path, metavar="FOLDER", help="what to read, instead of the options' folders")
    parser.add_argument("--run", type=Path, metavar="FOLDER", help="run folder, instead of the options' one")
    parser.add_argument("--out", "-o", type=Path, metavar="FOLDER", help="where results go")
    parser.add_argument("--frame", type=int, help="which frame (from 0) of files that hold several")
    if command in ("crop", "eval"):
        parser.add_argument("--scheme", metavar="NAME", help="what labels mean: a shipped scheme or a classes.yaml")
    else:
        parser.set_defaults(scheme=None)
    return parser


def _split(rest: Sequence[str]) -> tuple[dict[str, str], tuple[str, ...]]:
    """Published options and medseg's own overrides of what stands on the command line."""
    options: dict[str, str] = {}
    own: list[str] = []
    words = iter(rest)
    for word in words:
        name, equals, value = word.removeprefix("--").removeprefix("+").partition("=")
        if not equals:
            following = next(words, None) if word.startswith("--") else None
            if following is None:
                raise MedsegError(f"options must be key=value or --key value, got {word}; see --help")
            value = following
        if "." in name:
            own.append(f"{name}={value}")
        else:
            options[name.replace("-", "_")] = value
    return options, tuple(own)


def _text(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)
