"""This file lets the scripts take options as the published program did, `name=value`, beside `--name value`."""

from __future__ import annotations

from collections.abc import Sequence


def as_options(arguments: Sequence[str]) -> list[str]:
    """Arguments for argparse: `name=value` becomes `--name value`, and `section.key=value` becomes `--set` of it.

    A value that is no option keeps its place, so that an option may have several.

    Example:
        >>> as_options(["image_dir=photos", "--res", "320", "run.seed=3"])
        ['--image_dir', 'photos', '--res', '320', '--set', 'run.seed=3']
    """
    found: list[str] = []
    for argument in arguments:
        name, equals, value = argument.lstrip("-").partition("=")
        if equals and name.isidentifier():
            found += [f"--{name}", value]
        elif equals and all(part.isidentifier() for part in name.split(".")) and found[-1:] != ["--set"]:
            found += ["--set", argument]
        else:
            found.append(argument)
    return found
