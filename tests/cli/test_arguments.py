"""This file tests that the scripts read options as the published program did."""

from __future__ import annotations

import pytest

from medseg.cli.arguments import as_options


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (["res=320"], ["--res", "320"]),
        (["--res=320"], ["--res", "320"]),
        (["--res", "320"], ["--res", "320"]),
        (["image_dir=a=b/c.png"], ["--image_dir", "a=b/c.png"]),
        (["--image_dir", "a.png", "b c.png"], ["--image_dir", "a.png", "b c.png"]),
        (["stego.steps=3"], ["--set", "stego.steps=3"]),
        (["--set", "stego.steps=3", "run.seed=1"], ["--set", "stego.steps=3", "--set", "run.seed=1"]),
        (["--image_dir", "photos/n=3.png"], ["--image_dir", "photos/n=3.png"]),
        (["--help"], ["--help"]),
    ],
)
def test_names_with_values_become_options_and_the_rest_stays(given: list[str], expected: list[str]) -> None:
    assert as_options(given) == expected
