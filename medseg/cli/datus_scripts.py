"""This file gives the published commands of DatUS their options: all of them go through the stages of one folder.

A step of the published program finds in `./outputs` what the step before it has left. Here each step keeps its options in
`OUT/stages/options.json`, and the next one takes those that it is not given, so that it goes on with the same network.
"""

from __future__ import annotations

import argparse
import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from medseg.cli.arguments import as_options
from medseg.errors import MedsegError
from medseg.files import write_json

_log = logging.getLogger(__name__)

_FILE = "stages/options.json"
_DEFAULTS: Mapping[str, Any] = {
    "data_dir": "data", "split": "train", "config": None, "vit_size": None, "patch_size": 8, "pretrained_weights": None,
    "crop_backbone": None, "crop_checkpoint": None, "resolution": 1.0, "n_clusters": 6, "t_clusters": None, "seed": 0,
    "classes": None, "crf": "false", "device": None, "set": [],
}  # fmt: skip
_SIZES = {"s": "small", "b": "base"}
_WITHOUT_MEANING = (
    "head", "head_plus", "f_type", "crop_path", "viz_validSegs", "batch_size_per_gpu", "checkpoint_key", "num_workers",
    "use_cuda", "csv", "csv_data", "save_clusters", "epochs", "mask_path", "map_path", "model",
)  # fmt: skip
"""Options of the published program that name files between its steps, or say nothing here."""


def run_command(arguments: Sequence[str], description: str, **fixed: Any) -> int:
    """Parse the options of a published command and run DatUS; 1 when a case failed.

    Args:
        arguments: of the command line.
        description: of the command.
        fixed: what the command itself says, for `run_datus`.
    """
    asked = vars(_parser(description).parse_args(as_options(arguments)))
    out: Path = asked.pop("out")
    unused = [name for name in _WITHOUT_MEANING if asked.pop(name) is not None]
    options = {**_DEFAULTS, **_kept(out), **{name: value for name, value in asked.items() if value is not None}}

    from medseg.cli.answers import answer_with, start_logging
    from medseg.scans.shipped_schemes import load_scheme
    from medseg.workflows.datus import run_datus

    start_logging(quiet=False, verbose=False)
    if unused:
        _log.info("without meaning here: %s", ", ".join(f"--{name}" for name in unused))
    config, overrides = _network(options)
    checkpoint = options["crop_checkpoint"]
    answer = run_datus(
        _images(options), out, config=config, overrides=overrides, crf=options["crf"] == "true",
        crop_backbone=options["crop_backbone"], crop_checkpoint=Path(checkpoint) if checkpoint else None,
        resolution=options["resolution"], clusters=options["n_clusters"], merge_to=options["t_clusters"],
        seed=options["seed"], scheme=load_scheme(options["classes"]) if options["classes"] else None, **fixed,
    )  # fmt: skip
    write_json(out / _FILE, options)
    return answer_with(answer, as_json=False)


def _parser(description: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--data_dir", help="holds {train,val}/images, or is a folder of pictures or volumes [data]")
    parser.add_argument("--split", help="the part of it [train]")
    parser.add_argument("--out", type=Path, default=Path("outputs"), help="one for all steps [outputs]")
    parser.add_argument("--vit_size", "--arch", help="DINO's ViT: vits or vitb [none: as the config says]")
    parser.add_argument("--patch_size", type=int, help="of that ViT [8]")
    parser.add_argument("--pretrained_weights", "--pretrained_weight", help="file with the weights of that ViT")
    parser.add_argument("--config", help="config that says how pictures are prepared, and by default which network")
    parser.add_argument("--crop_backbone", help="a second network for the crops, by name")
    parser.add_argument("--crop_checkpoint", help="its weights, such as MoCo's ResNet-50")
    parser.add_argument("--resolution", type=float, help="more gives more segments [1]")
    parser.add_argument("--n_clusters", type=int, help="of k-means [6]")
    parser.add_argument("--t_clusters", type=int, help="classes they are merged into [as many as clusters]")
    parser.add_argument("--seed", type=int, help="of k-means [0]")
    parser.add_argument("--classes", help="what labels mean: suim_coarse, suim_fine, suim, or a classes.yaml")
    parser.add_argument("--crf", nargs="?", const="true", type=str.lower, choices=["true", "false"])
    parser.add_argument("--device", help="cpu, cuda or cuda:0")
    parser.add_argument("--set", action="append", metavar="section.key=value", help="a key of the config")
    for name in _WITHOUT_MEANING:
        parser.add_argument(f"--{name}", help=argparse.SUPPRESS)
    return parser


def _images(options: Mapping[str, Any]) -> Path:
    """The folder of the split, or a folder of pictures that has none."""
    data = Path(options["data_dir"])
    split = data / options["split"]
    if not split.is_dir() and (there := [name for name in ("train", "val", "test") if (data / name).is_dir()]):
        raise MedsegError(f"--split must be a folder of {data}, got {options['split']}; there is {', '.join(there)}")
    return split if split.is_dir() else data


def _kept(out: Path) -> dict[str, Any]:
    """The options of the last step in this folder."""
    path = out / _FILE
    if not path.is_file():
        return {}
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        return {name: found[name] for name in _DEFAULTS}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise MedsegError(f"{path} must hold the options of the last step, got damage; remove it") from error


def _network(options: Mapping[str, Any]) -> tuple[str, list[str]]:
    """Config and overrides that mean the published options."""
    overrides = list(options["set"])
    if options["device"] not in (None, "cpu", "cuda", "cuda:0"):
        raise MedsegError(
            f"--device must be cpu, cuda or cuda:0, got {options['device']}; CUDA_VISIBLE_DEVICES chooses another GPU"
        )
    if options["device"]:
        overrides.append(f"run.device={options['device'].partition(':')[0]}")
    if options["pretrained_weights"]:
        overrides.append(f"features.checkpoint={options['pretrained_weights']}")
    size, patch = options["vit_size"], options["patch_size"]
    if size is None:
        return options["config"] or ("pictures_dino" if options["pretrained_weights"] else "pictures"), overrides
    letter = size.removeprefix("vit").lstrip("_")[:1]
    if letter not in _SIZES or patch not in (8, 16):
        raise MedsegError(
            f"--vit_size must be vits or vitb with --patch_size 8 or 16, got {size} and {patch}; for other networks "
            "leave it out and give --set features.backbone=NAME"
        )
    overrides.append(f"features.backbone=vit_{_SIZES[letter]}_patch{patch}_224.dino")
    return options["config"] or "pictures_dino", overrides
