"""This file turns values of the published STEGO program's options into config overrides and actions.

Every function here is a *reading*: it takes an option's value, all options that were given, and the
command, and returns a `Translation`. Options that mean something only together (network, patch size
and pyramid; crop, ratio and resolution) share one reading, which then answers for each of them alike.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from medseg.errors import MedsegError

Given = Mapping[str, str]
_FOLDERS_AND_CLASSES = {
    "potsdam": ("potsdam", 3),
    "potsdamraw": ("potsdamraw", 3),
    "cityscapes": ("cityscapes", 27),
    "cocostuff27": ("cocostuff", 27),
    "cocostuff15": ("cocostuff", 15),
    "cocostuff3": ("cocostuff", 3),
}
"""Folder and number of classes of the data sets that the published program knows by name."""
_PARTS = ("cocostuff15", "cocostuff3")
"""Data sets that share their folder with cocostuff27, so that only the name tells which classes are meant."""
_TRUNKS = ("resnet50", "mocov2", "robust_resnet50", "densecl")
"""Networks of its feature pyramid that can work: all are a ResNet-50, with other weights."""
_CROPS_A_PICTURE = 5
"""Random crops that the published program makes of a picture."""


@dataclass(frozen=True)
class Translation:
    """What options mean here.

    Attributes:
        notes: lines to say.
        overrides: `section.key=value`, without repetition.
        actions: what is for the script itself.
    """

    notes: tuple[str, ...] = ()
    overrides: tuple[str, ...] = ()
    actions: Mapping[str, Any] = field(default_factory=dict)

    def joined(self, other: Translation) -> Translation:
        """Both, each line and override once."""
        return Translation(
            tuple(dict.fromkeys((*self.notes, *other.notes))),
            tuple(dict.fromkeys((*self.overrides, *other.overrides))),
            {**self.actions, **other.actions},
        )


Read = Callable[[str, Given, str], Translation]


def whole(name: str, key: str) -> Read:
    """A whole number, or null."""
    return lambda value, given, command: _set(key, "null" if is_null(value) else _number(name, value, int))


def real(name: str, key: str) -> Read:
    """A number."""
    return lambda value, given, command: _set(key, _number(name, value, float))


def flag(name: str, key: str) -> Read:
    """True or false."""
    return lambda value, given, command: _set(key, _yaml(is_true(name, value)))


def word(**words: str) -> Callable[[str, str], Read]:
    """One of some words."""

    def option(name: str, key: str) -> Read:
        def read(value: str, given: Given, command: str) -> Translation:
            if value not in words:
                raise MedsegError(f"{name} must be one of {', '.join(words)}, got {value}; choose one of them")
            return _set(key, words[value])

        return read

    return option


def switch(name: str, action: str) -> Read:
    """An action that is on or off."""
    return lambda value, given, command: Translation(actions={action: is_true(name, value)})


def shift(name: str, key: str) -> Read:
    """A shift is used only where shifts are not measured."""
    return lambda value, given, command: _set(key, _number(name, value, float)).joined(_set("stego.shifts", "preset"))


def term_of_maps(name: str) -> Read:
    """The weight of a part of the loss that needs whole maps."""

    def read(value: str, given: Given, command: str) -> Translation:
        weight = _set(f"stego.{name}", _number(name, value, float))
        return weight.joined(_set("stego.sampling", "maps")) if float(value) > 0 else weight

    return read


def salience(value: str, given: Given, command: str) -> Translation:
    """Nine points in ten from salient pixels, or none."""
    wanted = is_true("use_salience", value)
    note = ("use_salience: pixels are salient by the image here; there they were those with a label",) if wanted else ()
    return Translation(note, ("stego.salient_share=" + ("0.9" if wanted else "0.0"),))


def dropout(value: str, given: Given, command: str) -> Translation:
    """The published share, or none."""
    return _set("stego.dropout", "0.1" if is_true("dropout", value) else "0.0")


def weights_file(value: str, given: Given, command: str) -> Translation:
    """A file, or null."""
    return _set("features.checkpoint", "null" if is_null(value) else _quoted(value))


def keep_every(value: str, given: Given, command: str) -> Translation:
    """Steps, `epoch` or null."""
    if value == "epoch" or is_null(value):
        return _set("stego.keep_every", "epoch" if value == "epoch" else "null")
    return _set("stego.keep_every", _number("checkpoint_freq", value, int))


def log_pictures(value: str, given: Given, command: str) -> Translation:
    """The smaller of the two intervals; null asks for none."""
    asked = {name: given[name] for name in ("val_freq", "hist_freq") if name in given and not is_null(given[name])}
    steps = [int(_number(name, text, int)) for name, text in asked.items()]
    return _set("stego.picture_every", str(min(steps))) if steps else Translation()


def pictures(value: str, given: Given, command: str) -> Translation:
    """How many pictures the panels of an evaluation show."""
    panels = int(_number("n_images", value, int))
    if command == "eval":
        return Translation(actions={"panels": panels})
    return Translation(("n_images: the log of a training shows five patches; it acts in evaluation",))


def batch(value: str, given: Given, command: str) -> Translation:
    """Of the training, or of the reconstruction."""
    key = "reconstruct.batch" if command in ("eval", "demo") else "stego.batch"
    return _set(key, _number("batch_size", value, int))


def parallel(value: str, given: Given, command: str) -> Translation:
    """Loader processes, CRF processes, and processes of the network."""
    found = Translation()
    if "num_workers" in given:
        workers = _number("num_workers", given["num_workers"], int)
        if command == "eval":
            found = Translation(actions={"processes": max(int(workers), 1)})
        elif command == "demo":
            found = Translation(("num_workers: the demo reads one picture after the other",))
        else:
            found = _set("run.workers", workers)
    if "use_ddp" in given and command in ("eval", "demo"):
        found = found.joined(_set("run.strategy", "ddp" if is_true("use_ddp", given["use_ddp"]) else "auto"))
    return found


def evaluated(value: str, given: Given, command: str) -> Translation:
    """The models of an evaluation or a demo."""
    names = [part.strip().strip("'\"") for part in value.strip().strip("[]").split(",")]
    return Translation(actions={"models": [Path(name) for name in names if name]})


def backbone(value: str, given: Given, command: str) -> Translation:
    """Network, patch size and projection."""
    arch, model = given.get("arch", "dino"), given.get("model_type")
    projection = given.get("projection_type")
    if arch == "feature-pyramid":
        if model not in (None, *_TRUNKS):
            raise MedsegError(
                f"model_type must be one of {', '.join(_TRUNKS)} with arch=feature-pyramid, got {model}; "
                "the pyramid takes the stages of a ResNet-50"
            )
        found = _set("features.backbone", "resnet50@2+3+4").joined(_set("stego.projection", "pyramid"))
        found = found.joined(_set("stego.sampling", "maps"))  # its head sees whole maps, not points
        if model in (None, "resnet50") or not is_null(given.get("pretrained_weights", "null")):
            return found
        raise MedsegError(
            f"pretrained_weights must be the weights of {model}, got none; fetch mocov2 with scripts/download_models.py"
        )
    if arch != "dino":
        raise MedsegError(f"arch must be dino or feature-pyramid, got {arch}; choose one of them")
    found = Translation()
    if projection is not None:
        if projection not in ("linear", "nonlinear") and not is_null(projection):
            raise MedsegError(f"projection_type must be linear, nonlinear or null, got {projection}; choose one")
        found = _set("stego.projection", "none" if is_null(projection) else projection)
    if not {"arch", "model_type", "dino_patch_size"} & set(given):
        return found
    model, patch = model or "vit_small", given.get("dino_patch_size", "8")
    if model not in ("vit_small", "vit_base") or patch not in ("8", "16"):
        raise MedsegError(
            f"model_type must be vit_small or vit_base, of dino_patch_size 8 or 16, got {model} of {patch}; "
            "set features.backbone for another network"
        )
    return found.joined(_set("features.backbone", f"{model}_patch{patch}_224.dino"))


def codes(value: str, given: Given, command: str) -> Translation:
    """Channels of the codes: `dim`, or the number of classes where codes are not continuous."""
    if is_true("continuous", given.get("continuous", "true")):
        return _set("stego.code_dim", _number("dim", given["dim"], int)) if "dim" in given else Translation()
    if given.get("arch") == "feature-pyramid":
        raise MedsegError(
            "continuous must be true with arch=feature-pyramid, got false; codes are no class scores here"
        )
    classes = _classes(given)
    if classes is None:
        raise MedsegError("continuous=false must know the number of classes, got none; give dir_dataset_n_classes")
    return _set("stego.code_dim", classes)


def data_set(value: str, given: Given, command: str) -> Translation:
    """Clusters of a named data set, and in an evaluation its classes; its folder is among the places."""
    _require_known(given)
    classes, name = _classes(given), given.get("dataset_name")
    if command == "eval":
        return Translation(actions={"scheme": name}) if name in _PARTS else Translation()
    return Translation() if classes is None else _set("stego.clusters", classes)


def crops(value: str, given: Given, command: str) -> Translation:
    """Windows of `res` pixels, from whole pictures or from crops of them."""
    resolution = int(_number("res", given.get("res", "224"), int))
    if command in ("eval", "demo", "plot"):
        return _set("prepare.resize", str(resolution))
    kind, loader = given.get("crop_type", "null"), given.get("loader_crop_type", "center")
    ratio = float(_number("crop_ratio", given.get("crop_ratio", "0.5"), float))
    if not 0 < ratio <= 1:
        raise MedsegError(f"crop_ratio must be in (0, 1], got {ratio:g}; .5 is the published one")
    if not is_null(kind) and kind not in ("five", "random"):
        raise MedsegError(f"crop_type must be five, random or null, got {kind}; choose one of them")
    if is_null(loader) or loader not in ("center", "random"):
        raise MedsegError(f"loader_crop_type must be center or random, got {loader}; pictures are not squashed here")
    if command == "crop":
        return Translation(actions={"crop_type": "five" if is_null(kind) else kind, "crop_ratio": ratio})
    made = is_null(kind) or _cropped(given) is not None
    scheme = {"center": "five", "random": "random"}[loader] if made else kind
    found = _set("prepare.resize", str(resolution if made else round(resolution / ratio)))
    found = found.joined(_set("patches.size", str(resolution)))
    if scheme == "five":
        return found.joined(_set("patches.scheme", "five"))
    found = found.joined(_set("patches.scheme", "R")).joined(_set("patches.per_case", str(_CROPS_A_PICTURE)))
    return found.joined(_set("patches.salient_fraction", "0.0"))


def places(value: str, given: Given, command: str) -> Translation:
    """Where a command reads and writes, as far as its options say."""
    root = Path(given.get("output_root", "."))
    actions: dict[str, Any] = {}
    experiment = given.get("experiment_name", "exp1")
    if command in ("train", "knns"):
        parts = [given["log_dir"]] if not is_null(given.get("log_dir", "null")) else []
        parts.append(f"{_nice_name(given)}_{experiment}")
        actions["run"] = root / "checkpoints" / given.get("full_name", "/".join(parts))
    if command in ("eval", "demo"):
        actions["out"] = root / "results" / "predictions" / experiment
        actions["imported"] = root / "checkpoints" / "imported"
    if command == "download":
        actions |= {"models_folder": root, "data_folder": Path(given.get("pytorch_data_dir", "."))}
    if "image_dir" in given:
        actions["scans"] = Path(given["image_dir"])
    elif "pytorch_data_dir" in given and command in ("train", "knns", "crop", "eval"):
        actions["scans"] = (_cropped(given) if command in ("train", "knns") else None) or _folder(given)
    if command == "crop":
        actions |= {"name": _nice_name(given), "out": Path(given.get("pytorch_data_dir", ".")) / "cropped"}
    return Translation(actions=actions)


def is_null(value: str) -> bool:
    """Whether a value says nothing; the published files also write `None`, which YAML takes for a word."""
    return value.strip().lower() in ("", "~", "null", "none")


def is_true(name: str, value: str) -> bool:
    """A truth value as YAML and Hydra write it."""
    text = value.strip().lower()
    if text not in ("true", "false", "yes", "no", "on", "off", "1", "0"):
        raise MedsegError(f"{name} must be true or false, got {value}; write one of them")
    return text in ("true", "yes", "on", "1")


def _set(key: str, value: str) -> Translation:
    return Translation(overrides=(f"{key}={value}",))


def _number(name: str, value: str, kind: type[int] | type[float]) -> str:
    try:
        return repr(kind(value))
    except ValueError as error:
        what = "a whole number" if kind is int else "a number"
        raise MedsegError(f"{name} must be {what}, got {value}; write it without quotes and units") from error


def _yaml(value: bool) -> str:
    return "true" if value else "false"


def _quoted(value: str) -> str:
    """A path as a YAML string, whatever is in it."""
    return "'" + value.replace("'", "''") + "'"


def _classes(given: Given) -> str | None:
    """Number of classes of the data set, where the options tell."""
    name = given.get("dataset_name", "directory")
    if name in _FOLDERS_AND_CLASSES:
        return str(_FOLDERS_AND_CLASSES[name][1])
    asked = given.get("dir_dataset_n_classes", "null")
    return None if is_null(asked) else _number("dir_dataset_n_classes", asked, int)


def _nice_name(given: Given) -> str:
    """The data set's own name."""
    name = given.get("dataset_name", "directory")
    return given.get("dir_dataset_name", name) if name == "directory" else name


def _folder(given: Given) -> Path:
    """Where the data set lies."""
    name = given.get("dataset_name", "directory")
    root = Path(given["pytorch_data_dir"])
    if name == "directory":
        own = given.get("dir_dataset_name", "null")
        return root if is_null(own) else root / own
    _require_known(given)
    return root / _FOLDERS_AND_CLASSES[name][0]


def _require_known(given: Given) -> None:
    name = given.get("dataset_name", "directory")
    if name not in ("directory", *_FOLDERS_AND_CLASSES):
        raise MedsegError(
            f"dataset_name must be one of directory, {', '.join(_FOLDERS_AND_CLASSES)}, got {name}; "
            f"for a folder of your own give dataset_name=directory dir_dataset_name={name}"
        )


def _cropped(given: Given) -> Path | None:
    """The folder that crop_datasets made for these options, where it is there."""
    if "pytorch_data_dir" not in given or is_null(given.get("crop_type", "null")):
        return None
    name = f"{_nice_name(given)}_{given['crop_type']}_crop_{float(given.get('crop_ratio', '0.5')):g}"
    folder = Path(given["pytorch_data_dir"]) / "cropped" / name
    return folder if folder.is_dir() else None
