"""This file keeps the run folder: what was asked, on which inputs, by which versions.

`run.yaml` is written before the first step and never changed by training. The *run hash* stands
for everything that shaped the trained model (settings, inputs, weights); a mask's manifest names it.
"""

from __future__ import annotations

import platform
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import yaml

from medseg.config import CHANGEABLE_AFTER_TRAINING, Config, as_plain, config_from_plain
from medseg.errors import MedsegError
from medseg.files import hash_content, hash_file, load_yaml, write_text
from medseg.scans.cases import Case
from medseg.scans.sources import hash_scan

TRAINED_METHODS = ("stego", "kmeans", "untrained", "linear")
"""Methods that a training fits: clusters on features, named afterwards. `linear`, the linear probe, needs labels beside
the training images and has classes for clusters."""
LATER_METHODS = ("clicks", "probe")
"""Methods that are added to a trained run: clusters that a person named by clicks, and a probe on a few labels. They
bring their classes, and masks of other methods do not depend on them."""
METHODS = (*TRAINED_METHODS, *LATER_METHODS)
"""All methods that a run folder may hold."""
OWN_CLASSES = ("linear", *LATER_METHODS)
"""Methods whose classes come from people or labels; no rule names them."""
DIRECT_METHODS: Mapping[str, tuple[str, ...]] = {
    "tof": ("student", "flux"),
    "ce_mra": ("student", "flux"),
    "cta": ("student", "flux"),
    "picture": (),
    "liver_ultrasound": ("student", "teacher"),
}
"""By modality the methods that say "vessel" or "liver" themselves: the network that a rule taught, and the rule."""
_PACKAGES = (
    "medseg",
    "torch",
    "monai",
    "timm",
    "numpy",
    "scipy",
    "scikit-image",
    "nibabel",
    "SimpleITK",
    "lightning-fabric",
)


@dataclass(frozen=True)
class RunRecord:
    """A run folder that exists.

    Attributes:
        folder: where the run lives.
        config: the resolved config it was started with.
        inputs: per case the image's path relative to the scans, SHA-256, patient and split.
        scans: where the scans were; None where an older run, or one under pseudonyms, does not tell.
    """

    folder: Path
    config: Config
    inputs: Mapping[str, Mapping[str, str]]
    scans: Path | None = None

    @property
    def checkpoints(self) -> Path:
        """Resumable training states."""
        return self.folder / "checkpoints"

    @property
    def store(self) -> Path:
        """Prepared volumes and features; may be shared between runs."""
        return self.config.features.store or self.folder / "features"

    @property
    def student(self) -> Path:
        """The student of this run: its training and its weights."""
        return self.folder / "student"

    @property
    def voters(self) -> tuple[Path, ...]:
        """Where each voter was trained: the run folder itself, then `voters/2`, `voters/3` ..."""
        return (self.folder, *(self.folder / "voters" / str(n) for n in range(2, self.config.stego.voters + 1)))

    def method_folders(self, method: str) -> tuple[Path, ...]:
        """Where a method and its classes lie, one folder a voter; of a probe, whose prior is the vote, one in all."""
        return tuple(voter / "methods" / method for voter in (self.voters[:1] if method == "probe" else self.voters))

    def has_method(self, method: str) -> bool:
        """Whether the method was fitted to the end by every voter."""
        return all((folder / "classes.yaml").is_file() for folder in self.method_folders(method))

    @property
    def has_begun(self) -> bool:
        """Whether a training step or a method was kept, so that something would be lost."""
        begun = (self.checkpoints, self.student / "checkpoints")
        return any(folder.is_dir() for folder in begun) or any(self.has_method(name) for name in METHODS)

    def trained_on(self, sha256: str) -> bool:
        """Whether a scan with this content was trained on."""
        return any(entry["sha256"] == sha256 and entry["split"] == "train" for entry in self.inputs.values())

    def run_hash(self, later: Collection[str] = ()) -> str:
        """Hash of the settings that shaped the model, the inputs and every method that training fitted.

        Args:
            later: which of `LATER_METHODS` are used, and so count too.
        """
        names = (*TRAINED_METHODS, *later)
        kept = [*(voter / "methods" / name for voter in self.voters for name in names), self.student]
        files = sorted(path for folder in kept for path in folder.rglob("*") if _is_of_model(path))
        weights = {path.relative_to(self.folder).as_posix(): hash_file(path) for path in files}
        return hash_content([_training_part(self.config), {k: dict(v) for k, v in self.inputs.items()}, weights])


def _is_of_model(path: Path) -> bool:
    is_leftover = path.name.startswith(".")  # half-written by a process that was killed
    return path.suffix in (".safetensors", ".json", ".yaml") and not is_leftover and path.is_file()


def start_run(
    folder: Path, config: Config, *, training: Sequence[Case], held_out: Sequence[Case], scans: Path, device: str
) -> RunRecord:
    """Write `run.yaml`, or check that the one there asks for the same, so that the run can go on.

    A run that failed before anything was kept makes way for a corrected one.

    Raises:
        MedsegError: the folder holds another run.
    """
    inputs = {
        case.case_id: {
            "image": source_of(case, scans),
            "sha256": hash_scan(case.image, case.pick),
            "patient": case.patient,
            "split": split,
            "mask": hash_file(case.mask) if case.mask else (case.mask_mode or "none given"),
        }
        for split, cases in (("train", training), ("held_out", held_out))
        for case in cases
    }
    record = RunRecord(folder, config, inputs)
    if record.has_begun and (folder / "run.yaml").is_file():
        known = open_run(folder)
        if _training_part(known.config) != _training_part(config):
            raise MedsegError(
                f"{folder} must hold a run of the same config, got {_first_difference(known.config, config)}; "
                "choose another --run"
            )
        if known.inputs != inputs:
            raise MedsegError(
                f"{folder} must hold a run on the same scans, got other files or another split; choose another --run"
            )
    content = {
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "seed": config.run.seed,
        "device": device,
        "config_hash": hash_content(as_plain(config)),
        "config": as_plain(config),
        "inputs": inputs,
        "scans": _told(scans, (*training, *held_out)),
        "versions": versions(),
    }
    write_text(folder / "run.yaml", yaml.safe_dump(content, sort_keys=False, allow_unicode=True))
    return record


def _told(scans: Path, cases: Sequence[Case]) -> str | None:
    """Where the scans are, unless there are none or their names are not to be told."""
    return None if not cases or any(case.alias for case in cases) else str(scans.resolve())


def open_run(folder: Path) -> RunRecord:
    """Read a run folder.

    Raises:
        MedsegError: there is no run, or its `run.yaml` was damaged.
    """
    path = folder / "run.yaml"
    if not path.is_file():
        inside = folder / "run"
        advice = f"did you mean {inside}?" if (inside / "run.yaml").is_file() else "train one with `medseg train`"
        raise MedsegError(f"{folder} must be a run folder with a run.yaml, got none; {advice}")
    try:
        content = load_yaml(path.read_text(encoding="utf-8"))
        inputs = {
            case: {key: str(entry[key]) for key in ("image", "sha256", "patient", "split", "mask")}
            for case, entry in content["inputs"].items()
        }
        scans = None if content.get("scans") is None else Path(str(content["scans"]))
        return RunRecord(folder, config_from_plain(content["config"], str(path)), inputs, scans)
    except (yaml.YAMLError, AttributeError, KeyError, TypeError, UnicodeDecodeError) as error:
        raise MedsegError(
            f"{path} must be a run record, got {' '.join(str(error).split())}; train the run again"
        ) from error


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that shape a result."""
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found


def source_of(case: Case, scans: Path) -> str:
    """What results call the file of a case: its alias where it has a pseudonym, else its path relative to SCANS."""
    return case.alias or relative_source(case.image, scans)


def relative_source(path: Path, scans: Path) -> str:
    """A scan's path relative to SCANS with forward slashes; only its name where it lies elsewhere."""
    root = scans if scans.is_dir() else scans.parent
    try:
        return path.resolve().relative_to(root.resolve()).as_posix()
    except ValueError:
        return path.name


def _training_part(config: Config) -> dict[str, Any]:
    plain = as_plain(config)
    plain["run"] = {key: plain["run"][key] for key in ("seed", "precision", "held_out")}
    plain["features"].pop("store")
    return {
        section: values
        for section, values in plain.items()
        if section not in CHANGEABLE_AFTER_TRAINING or section == "prepare"
    }


def _first_difference(known: Config, asked: Config) -> str:
    before, after = _training_part(known), _training_part(asked)
    for section, values in after.items():
        for key, value in values.items():
            if before[section].get(key) != value:
                return f"{section}.{key} {before[section].get(key)!r} there and {value!r} now"
    return "another config"
