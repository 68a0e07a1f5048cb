"""This file translates the options of the published STEGO program into this one's config and actions, one row each.

An *option* is a name of the published program's YAML files. A row either *works*: its value becomes
config overrides (`section.key=value`) or an action of a script (a folder to read, a switch); or it is
*refused*, with the reason. A refused option passes where its value asks for nothing (`off`), and where
a config file of the published program holds it at the value that the file was published with.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

from medseg.errors import MedsegError
from medseg.workflows.published_values import (
    Translation,
    backbone,
    batch,
    codes,
    crops,
    data_set,
    dropout,
    evaluated,
    flag,
    keep_every,
    log_pictures,
    parallel,
    pictures,
    places,
    real,
    salience,
    shift,
    switch,
    term_of_maps,
    weights_file,
    whole,
    word,
)

COMMANDS = ("train", "knns", "crop", "eval", "demo", "plot", "download")
"""The scripts by what they do: train_segmentation, precompute_knns, crop_datasets, eval_segmentation ..."""
_TRAIN = ("train", "knns", "crop")  # these read the published train_config.yml
_USE = ("eval", "demo")
_DATA = ("train", "knns", "crop", "eval")
_DEAD = "the published program reads it and does nothing with it"
_SERVICE = "medseg talks to no service; metrics.csv and TensorBoard are written in any case"

Read = Callable[[str, Mapping[str, str], str], Translation]


@dataclass(frozen=True)
class Option:
    """One option of the published program.

    Attributes:
        name: as in its YAML.
        commands: which of `COMMANDS` take it.
        says: what it does here, or why it is refused.
        keys: the config keys that it can set.
        read: value, all given options and command to what they mean; None: refused.
        off: values of a refused option that ask for nothing.
        published: the value of a refused option in the published program's own file.
    """

    name: str
    commands: tuple[str, ...]
    says: str
    keys: tuple[str, ...] = ()
    read: Read | None = None
    off: tuple[str, ...] = ()
    published: str | None = None


def _key(name: str, key: str, says: str, convert: Callable[[str, str], Read]) -> Option:
    """An option of the training that is one key here."""
    return Option(name, _TRAIN, says, (key,), convert(name, key))


def _refused(name: str, reason: str, off: str, published: str, commands: tuple[str, ...] = _TRAIN) -> Option:
    return Option(name, commands, reason, off=(off,), published=published)


_CROP_KEYS = ("prepare.resize", "patches.size", "patches.scheme", "patches.per_case", "patches.salient_fraction")
_BACKBONE_KEYS = ("features.backbone", "stego.projection", "stego.sampling")
_WEIGHTS = "only with a weight above 0; then also `stego.sampling=maps`"

OPTIONS: tuple[Option, ...] = (
    # folders and data
    Option(
        "output_root",
        ("train", "knns", "eval", "demo", "plot", "download"),
        "folder above `checkpoints/` (runs) and `results/predictions/`",
        (),
        places,
    ),
    Option("pytorch_data_dir", (*_DATA, "download"), "folder that holds the data sets", (), places),
    Option("experiment_name", ("train", "knns", "eval", "demo"), "last part of the run or result folder", (), places),
    Option("log_dir", ("train", "knns"), "folder of the run below `checkpoints/`", (), places),
    Option("full_name", ("train", "knns"), "run folder below `checkpoints/`, instead of the two above", (), places),
    Option(
        "dataset_name",
        _DATA,
        "directory, potsdam, potsdamraw, cityscapes, cocostuff27, cocostuff15 or cocostuff3: folder and classes",
        ("stego.clusters",),
        data_set,
    ),
    Option("dir_dataset_name", _DATA, "folder of dataset_name=directory", (), places),
    Option(
        "dir_dataset_n_classes",
        _DATA,
        "number of clusters for dataset_name=directory",
        ("stego.clusters",),
        data_set,
    ),
    Option(
        "has_labels",
        ("train", "knns"),
        "false: labels beside the images are not read",
        (),
        switch("has_labels", "labels"),
    ),
    Option(
        "crop_type",
        _TRAIN,
        "five, random or null: windows of `res` pixels from pictures whose shorter side is `res / crop_ratio`; "
        "a folder made by crop_datasets is read where there is one",
        _CROP_KEYS,
        crops,
    ),
    Option("crop_ratio", _TRAIN, "side of a crop as a share of the picture's", _CROP_KEYS, crops),
    Option(
        "res",
        (*_TRAIN, *_USE, "plot"),
        "window in training; in evaluation, demo and plots the shorter side (nothing is cut off)",
        _CROP_KEYS,
        crops,
    ),
    Option(
        "loader_crop_type",
        _TRAIN,
        "without crop_type: center (here also both ends of a long picture) or random; null (squashed) is refused",
        _CROP_KEYS,
        crops,
    ),
    # loader
    Option(
        "num_workers",
        (*_TRAIN, *_USE),
        "loader processes; in evaluation processes of the CRF",
        ("run.workers",),
        parallel,
    ),
    Option(
        "batch_size",
        (*_TRAIN, *_USE),
        "pictures a step; in evaluation and demo windows a batch",
        ("stego.batch", "reconstruct.batch"),
        batch,
    ),
    _refused("precompute_batch_size", "features are computed in batches of a fixed size", "128", "128"),
    _key("max_steps", "stego.steps", "training steps, one batch each", whole),
    _key("num_neighbors", "stego.neighbours", "the positive is drawn among so many nearest patches", whole),
    # model
    _key("extra_clusters", "stego.extra_clusters", "clusters beyond the classes", whole),
    Option(
        "model_type",
        _TRAIN,
        "vit_small or vit_base (DINO); resnet50, mocov2, robust_resnet50 or densecl (pyramid)",
        _BACKBONE_KEYS,
        backbone,
    ),
    Option("arch", _TRAIN, "dino, or feature-pyramid on `resnet50@2+3+4`", _BACKBONE_KEYS, backbone),
    Option("dino_patch_size", _TRAIN, "8 or 16", _BACKBONE_KEYS, backbone),
    _key("granularity", "stego.granularity", "levels of the feature pyramid, 1 to 4", whole),
    _key(
        "dino_feat_type",
        "features.feature",
        "feat, or KK (its heads are counted here, also those of ViT-B)",
        word(feat="feat", KK="KK"),
    ),
    Option(
        "projection_type",
        _TRAIN,
        "linear, nonlinear or null (features are the codes); the pyramid has its own",
        ("stego.projection",),
        backbone,
    ),
    Option(
        "continuous",
        _TRAIN,
        "false: as many code channels as classes (of DINO; refused for the pyramid)",
        ("stego.code_dim",),
        codes,
    ),
    Option("dim", _TRAIN, "channels of the codes", ("stego.code_dim",), codes),
    Option(
        "dropout",
        _TRAIN,
        "true .1, false 0; false there left the head's own dropout on, here it is off too",
        ("stego.dropout",),
        dropout,
    ),
    Option("pretrained_weights", _TRAIN, "weights file of the backbone", ("features.checkpoint",), weights_file),
    _key("zero_clamp", "stego.zero_clamp", "clamp code correspondences at 0", flag),
    _key("stabalize", "stego.stabilise", "clamp code correspondences at .8", flag),
    _key("pointwise", "stego.pointwise", "centre the feature correspondences", flag),
    Option(
        "use_salience",
        _TRAIN,
        "90 % of the points from salient pixels; salience there came from labels, here not",
        ("stego.salient_share",),
        salience,
    ),
    _refused("use_true_labels", "it trains the head on labels, and labels shape no weight here", "false", "false"),
    _refused("use_recalibrator", _DEAD, "false", "false"),
    _refused("use_fit_model", _DEAD, "false", "false"),
    _refused("stop_at_zero", _DEAD, "false", "true"),
    # loss
    _key("lr", "stego.learning_rate", "learning rate of the head", real),
    _key("feature_samples", "stego.feature_samples", "points along each side of the point grid", whole),
    _key("neg_samples", "stego.negatives", "draws of other pictures of the batch", whole),
    _key("correspondence_weight", "stego.correspondence_weight", "weight of the three terms together", real),
    _key("neg_inter_weight", "stego.random_weight", "weight of the random term", real),
    _key("pos_inter_weight", "stego.knn_weight", "weight of the neighbour term", real),
    _key("pos_intra_weight", "stego.self_weight", "weight of the self term", real),
    *(
        Option(
            name,
            _TRAIN,
            f"shift of the {term} term, as given (`stego.shifts=preset`)",
            (f"stego.{term}_shift", "stego.shifts"),
            shift(name, f"stego.{term}_shift"),
        )
        for name, term in (("neg_inter_shift", "random"), ("pos_inter_shift", "knn"), ("pos_intra_shift", "self"))
    ),
    *(
        Option(name, _TRAIN, f"{what}; {_WEIGHTS}", (f"stego.{name}", "stego.sampling"), term_of_maps(name))
        for name, what in (
            ("rec_weight", "weight of the reconstruction of the features"),
            ("aug_alignment_weight", "weight of the agreement with an augmented view"),
            ("crf_weight", "weight of the contrastive CRF loss"),
        )
    ),
    _refused("repulsion_weight", _DEAD, "0", "0.0"),
    _key("alpha", "stego.crf_alpha", "kernel of the CRF loss", real),
    _key("beta", "stego.crf_beta", "kernel of the CRF loss", real),
    _key("gamma", "stego.crf_gamma", "kernel of the CRF loss", real),
    _key("w1", "stego.crf_w1", "kernel of the CRF loss", real),
    _key("w2", "stego.crf_w2", "kernel of the CRF loss", real),
    _key("shift", "stego.crf_shift", "kernel of the CRF loss", real),
    _key("crf_samples", "stego.crf_samples", "pixels of a picture that enter the CRF loss", whole),
    _refused("color_space", f"{_DEAD}; the CRF loss sees rgb", "rgb", "rgb"),
    _key("reset_probe_steps", "stego.reset_probe_steps", "step at which the probes start anew, or null", whole),
    # log
    Option("n_images", _DATA, "pictures in the panels of evaluation; training always shows five", (), pictures),
    _key("scalar_log_freq", "stego.log_every", "steps between rows of the log", whole),
    Option(
        "checkpoint_freq",
        _TRAIN,
        "steps between kept weights (`epoch`: each); there it had no effect",
        ("stego.keep_every",),
        keep_every,
    ),
    Option("val_freq", _TRAIN, "steps between pictures in the log", ("stego.picture_every",), log_pictures),
    Option(
        "hist_freq",
        _TRAIN,
        "steps between histograms; they come with the pictures, at the smaller interval",
        ("stego.picture_every",),
        log_pictures,
    ),
    _refused("azureml_logging", _SERVICE, "false", "true"),
    _refused("submitting_to_aml", _SERVICE, "false", "false"),
    # evaluation and demo
    Option("model_paths", ("eval",), "STEGO checkpoints (.ckpt) or run folders, `a` or `[a, b]`", (), evaluated),
    _refused("run_prediction", "without predictions there is nothing to score", "true", "true", ("eval",)),
    Option("run_crf", ("eval",), "refine by the dense CRF", (), switch("run_crf", "crf")),
    _refused(
        "run_picie",
        "its models are pickled programs, and medseg runs nothing out of a checkpoint",
        "false",
        "true",
        ("eval",),
    ),
    Option("dark_mode", ("eval",), "figures on black", (), switch("dark_mode", "dark")),
    Option("use_ddp", _USE, "several processes; how many is `run.devices=N`", ("run.strategy",), parallel),
    Option("image_dir", ("demo", "plot"), "folder of images", (), places),
    Option("model_path", ("demo", "plot"), "a STEGO checkpoint (.ckpt) or a run folder", (), evaluated),
    Option(
        "plot_correspondence",
        ("plot",),
        "heat maps of query points",
        (),
        switch("plot_correspondence", "correspondence"),
    ),
    Option("plot_movie", ("plot",), "a movie of a moving query point", (), switch("plot_movie", "movie")),
)
"""Every option of the published program's train, evaluation, demo and plot files."""


def translate(options: Mapping[str, str], command: str, *, from_file: Collection[str] = ()) -> Translation:
    """What the options of a published command mean here.

    Args:
        options: name to value, as written.
        command: one of `COMMANDS`.
        from_file: names that came from a config file, which also holds options that nobody asked for: those
            of other commands, and refused ones at their published value, are passed over and noted.

    Raises:
        MedsegError: an option is unknown (the nearest is named), refused, or mistyped.
    """
    rows = {option.name: option for option in OPTIONS}
    given: dict[str, str] = {}
    notes: list[str] = []
    for name, value in options.items():
        row = rows.get(name)
        if row is None:
            raise MedsegError(f"option must be known, got {name}; {_advice(name, command)}")
        if command not in row.commands:
            if name in from_file:
                continue
            raise MedsegError(f"{name} must be left out here, got {value}; it belongs to {', '.join(row.commands)}")
        if row.read is not None:
            given[name] = value
        elif _plain(value) in map(_plain, row.off):
            continue
        elif name in from_file and row.published is not None and _plain(value) == _plain(row.published):
            notes.append(f"{name}={value} is passed over: {row.says}")
        else:
            raise MedsegError(f"{name} must be left out, got {value}; {row.says}")
    found = places("", given, command)
    for name, value in given.items():
        if read := rows[name].read:
            found = found.joined(read(value, given, command))
    return Translation((*notes, *found.notes), found.overrides, found.actions)


def _plain(value: str) -> str:
    """A value in one spelling: case does not count, nor do the zeros of `0.0`."""
    text = value.strip().lower()
    try:
        return f"{float(text):g}"
    except ValueError:
        return text


def _advice(name: str, command: str) -> str:
    known = [option.name for option in OPTIONS if command in option.commands]
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f"did you mean {near[0]}?" if near else "docs/from_stego.md lists the options; medseg's own are section.key"


def as_markdown() -> str:
    """The table of options for `docs/from_stego.md`."""
    working = sum(option.read is not None for option in OPTIONS)
    lines = [
        f"{len(OPTIONS)} options: {working} work, {len(OPTIONS) - working} are refused with the reason.",
        "",
        "| option | commands | here | what it does, or why it is refused |",
        "|---|---|---|---|",
    ]
    for option in OPTIONS:
        keys = ", ".join(f"`{key}`" for key in option.keys)
        here = keys or "the script" if option.read else f"refused, but for {' and '.join(option.off)}"
        lines.append(f"| `{option.name}` | {', '.join(option.commands)} | {here} | {option.says} |")
    return "\n".join(lines) + "\n"
