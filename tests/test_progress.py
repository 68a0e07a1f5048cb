"""This file tests that progress shows when work is long and keeps quiet otherwise."""

import logging

import pytest

from medseg import progress
from medseg.progress import track


def test_items_come_through_in_order_whatever_is_shown(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "medseg"):
        assert list(track(range(4), "counting")) == [0, 1, 2, 3]
    assert not caplog.records


def test_long_work_says_how_much_is_left(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "_LINE_SECONDS", 0.0)
    logging.getLogger("medseg").propagate = True
    with caplog.at_level(logging.INFO, "medseg"):
        list(track(iter("ab"), "spelling", total=2))
    assert [record.getMessage() for record in caplog.records] == [
        "spelling 1 of 2, about 0 s left",
        "spelling 2 of 2, about 0 s left",
    ]
