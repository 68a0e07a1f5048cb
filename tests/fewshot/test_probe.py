"""Prior and head are multiplied; a head that says nothing leaves the label-free mask as it is."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from medseg.errors import MedsegError
from medseg.fewshot.probe import MASK_SIDE, PRIOR_LIMIT, ProbeCard, joined, log_odds, mask_prior


def test_log_odds_are_against_what_no_class_has() -> None:
    shares = np.array([0.2, 0.5], np.float32).reshape(2, 1, 1, 1)
    assert log_odds(shares).ravel() == pytest.approx([np.log(0.2 / 0.3), np.log(0.5 / 0.3)], rel=1e-5)


def test_the_mask_decides_on_which_side_the_prior_is() -> None:
    odds = np.array([-9.0, -0.2, 0.2, 9.0, 3.0], np.float32).reshape(1, 5, 1, 1)
    mask = np.array([False, True, True, True, False]).reshape(1, 5, 1, 1)
    expected = [-PRIOR_LIMIT, MASK_SIDE, MASK_SIDE, PRIOR_LIMIT, -MASK_SIDE]
    assert mask_prior(odds.copy(), mask).ravel().tolist() == expected
    assert mask_prior(odds.copy(), None).ravel() == pytest.approx([-PRIOR_LIMIT, -0.2, 0.2, PRIOR_LIMIT, 3.0])


def test_a_head_that_says_nothing_keeps_the_prior() -> None:
    rng = np.random.default_rng(0)
    prior = rng.normal(0, 2, (2, 3, 4, 5)).astype(np.float32)
    shares = joined(prior, np.zeros_like(prior), 1.0)
    odds = np.concatenate([np.ones((1, 3, 4, 5)), np.exp(prior)])
    assert np.allclose(shares, (odds / odds.sum(0))[1:], atol=1e-6)
    moved = joined(prior, np.full_like(prior, 50.0), 1.0)
    assert np.isfinite(moved).all() and np.allclose(moved.sum(0), 1, atol=1e-5)


def test_a_card_comes_back_and_a_damaged_one_is_one_line(tmp_path: Path) -> None:
    card = ProbeCard("linear", 0.5, {"method": "stego"}, {"P1": "ab"}, "cross_entropy", 1.0)
    card.write(tmp_path)
    assert ProbeCard.read(tmp_path) == card
    (tmp_path / "probe.json").write_text('{"format": "medseg-probe/1"}', encoding="utf-8")
    with pytest.raises(MedsegError, match=r"probe\.json must"):
        ProbeCard.read(tmp_path)
