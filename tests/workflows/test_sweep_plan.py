"""This file tests what a sweep trains: its arguments, its cells, and sizes that cannot be."""

from __future__ import annotations

import logging

import pytest

from medseg.config import load_config
from medseg.errors import MedsegError
from medseg.workflows.sweep_plan import SCHEMES, Cell, cells_of, listed, scheme_of_name, seed_of, share_of


@pytest.mark.parametrize(("text", "value"), [("0.05", 0.05), ("5%", 0.05), (".1%", 0.001), ("1", 1.0), ("100%", 1.0)])
def test_a_share_is_a_number_or_a_percentage(text: str, value: float) -> None:
    assert share_of(text, "--sizes") == pytest.approx(value)


@pytest.mark.parametrize("text", ["5", "0", "-1%", "101%", "nan", "five", "", "%"])
def test_what_is_no_share_is_one_line_that_names_its_option(text: str) -> None:
    with pytest.raises(MedsegError, match="--n_size must be a") as failure:
        share_of(text, "--n_size")
    assert "\n" not in str(failure.value)


def test_5_is_an_error_because_5_percent_is_meant() -> None:
    with pytest.raises(MedsegError, match="write 5% perhaps"):
        share_of("5", "--sizes")


def test_a_list_keeps_its_order_and_each_value_once() -> None:
    assert listed("42, 1,42", "--seeds", seed_of) == (42, 1)
    assert listed("CFX,R", "--schemes", scheme_of_name) == ("CFX", "R")


@pytest.mark.parametrize(
    ("text", "option", "read", "said"),
    [
        ("R,CFY", "--schemes", scheme_of_name, "'CFY'"),
        ("five", "--schemes", scheme_of_name, "'five'"),
        ("1,-2", "--seeds", seed_of, "'-2'"),
        ("1,1.5", "--seeds", seed_of, "'1.5'"),
        (" , ", "--seeds", seed_of, "at least one"),
    ],
)
def test_a_wrong_list_is_one_line(text: str, option: str, read: object, said: str) -> None:
    with pytest.raises(MedsegError, match=said) as failure:
        listed(text, option, read)  # type: ignore[arg-type]
    assert str(failure.value).startswith(option)


def test_all_takes_everything_and_so_has_one_size() -> None:
    cells = cells_of(("R", "all"), (0.1, 0.5), (1, 42), per_case=500, cases=3)
    assert [cell.name for cell in cells] == ["R_0.1_1", "R_0.5_1", "all_1_1", "R_0.1_42", "R_0.5_42", "all_1_42"]


def test_the_usual_sweep_has_392_cells() -> None:
    sizes = (0.001, 0.005, 0.01, 0.05, 0.1, 0.25, 0.5, 0.75)
    assert len(cells_of(SCHEMES, sizes, range(8), per_case=500, cases=20)) == (6 * 8 + 1) * 8


def test_sizes_that_pick_the_same_number_are_one_cell_and_that_is_said(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        cells = cells_of(("R",), (0.001, 0.02, 0.01, 0.5), (1,), per_case=60, cases=40)
    assert [cell.size for cell in cells] == [0.02, 0.5]  # .06, .6 and 1.2 of 60 patches are one each
    assert "0.1%, 1%, 2%" in caplog.text
    assert "patches.per_case" in caplog.text


def test_a_size_that_leaves_no_patch_is_one_line() -> None:
    with pytest.raises(MedsegError, match=r"--sizes must leave at least one patch, got 0\.1% of 60 patches in 3 cases"):
        cells_of(("R",), (0.5, 0.001), (1,), per_case=60, cases=3)
    assert len(cells_of(("R",), (0.001,), (1,), per_case=500, cases=2)) == 1  # one of 1000


def test_a_cell_is_config_keys_that_exist() -> None:
    config = load_config("tof_mra", Cell("CFX", 0.05, 42).overrides)
    assert (config.patches.scheme, config.patches.scheme_fraction, config.run.seed) == ("CFX", 0.05, 42)


@pytest.mark.parametrize(("size", "count"), [(0.001, 1), (0.05, 3), (1.0, 60)])
def test_a_scheme_picks_at_least_one_patch_of_a_case(size: float, count: int) -> None:
    assert Cell("R", size, 1).patches_of(60) == count
