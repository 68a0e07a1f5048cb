"""Ultrasound volumes are drawn as they lie in the body, whatever the order of their axes."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from nibabel.orientations import axcodes2ornt, inv_ornt_aff, ornt_transform
from scipy.ndimage import gaussian_filter
from workflows.test_frames import write

from medseg.workflows import volumes
from medseg.workflows.scoring import score_results

SPACING = (1.0, 1.5, 3.0)
"""mm along R, A and S."""
SHAPE = (120, 90, 5)


def sweep() -> tuple[np.ndarray, np.ndarray]:
    """A sweep in RAS, brighter at the patient's right, and the fan that it saw; the probe is in front."""
    rng = np.random.default_rng(0)
    right, front, _ = np.mgrid[: SHAPE[0], : SHAPE[1], : SHAPE[2]]
    down, across = (SHAPE[1] - 1 - front) * SPACING[1] + 20, (right - 59.5) * SPACING[0]
    radius, angle = np.hypot(down, across), np.arctan2(across, down)
    fan = (radius > 40) & (radius < 130) & (np.abs(angle) < 0.6)
    speckle = np.stack([gaussian_filter(rng.rayleigh(1, SHAPE[:2]), 2) for _ in range(SHAPE[2])], -1)
    return np.clip(fan * speckle * (60 + right), 0, 255).astype(np.uint8), fan


def stored_as(codes: str, values: np.ndarray) -> nibabel.Nifti1Image:
    """RAS values in a file whose axes point elsewhere."""
    turn = ornt_transform(axcodes2ornt("RAS"), axcodes2ornt(tuple(codes)))
    affine = np.diag([*SPACING, 1.0]) @ inv_ornt_aff(turn, SHAPE)
    return nibabel.Nifti1Image(nibabel.orientations.apply_orientation(values, turn), affine)


def test_neighbouring_slices_say_nothing_beyond_their_region() -> None:
    classes = np.zeros((2, 3, 1, 7), np.float32)
    classes[0], classes[1, 2] = 0.9, 0.9  # what is not the first class is the background, also where nothing was seen
    region = np.ones((1, 3, 1, 7), np.uint8)
    region[0, 0, 0, :4] = 0
    classes[..., 6] = 0  # emptied
    together = volumes._between_slices(classes, region, [("frames", {"sd_frames": 1.5})])
    assert together[0, ..., :6][region[0, ..., :6] > 0] == pytest.approx(0.9, abs=1e-5)
    assert not together[..., 6].any()
    assert together[1, :2].max() == 0
    assert volumes._between_slices(classes, region, [("masses", {})]) is classes


@pytest.mark.parametrize("codes", ["RAS", "LPS", "SLA", "PIR"])
def test_a_volume_is_drawn_upright(codes: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: dict[str, dict[str, Any]] = {}

    def keep(name: str, *arguments: Any, **more: Any) -> None:
        drawn[name] = dict(zip(("image", "labels", "spacing", "path"), arguments, strict=True)) | more

    for name in ("mip_picture", "overlay_picture"):
        monkeypatch.setattr(volumes, name, lambda *a, name=name, **m: (keep(name, *a, **m), a[3].write_bytes(b"")))
    values, fan = sweep()
    (tmp_path / "out" / "plots").mkdir(parents=True)
    nibabel.save(stored_as(codes, values), tmp_path / "a.nii.gz")
    write(tmp_path / "a.nii.gz", tmp_path / "out")
    assert drawn.keys() == {"mip_picture", "overlay_picture"}
    shown = drawn["mip_picture"]
    assert shown["spacing"] == pytest.approx(SPACING)
    assert shown["image"].shape == shown["labels"].shape == shown["region"].shape == SHAPE
    assert (shown["region"] & fan).sum() > 0.9 * (shown["region"] | fan).sum()
    inside = shown["region"] & fan
    assert np.corrcoef(shown["image"][inside], gaussian_filter(values / 255, (1, 1, 0))[inside])[0, 1] > 0.9
    liver, front = shown["labels"] == 2, np.indices(SHAPE)[1]
    assert set(np.unique(shown["labels"])) == {0, 2}  # sector tissue is what remains: it is not drawn
    assert front[liver].mean() > front[fan].mean() + 10  # painted in the half that is near the probe
    assert np.array_equal(shown["labels"], drawn["overlay_picture"]["labels"])


def test_a_liver_is_not_compared_with_rules_for_vessels(tmp_path: Path) -> None:
    values, fan = sweep()
    nibabel.save(stored_as("LPS", values), tmp_path / "a_img.nii.gz")
    front = np.indices(SHAPE)[1]
    nibabel.save(stored_as("LPS", np.where(front > 45, 2, 1).astype(np.uint8) * fan), tmp_path / "a_label.nii.gz")
    write(tmp_path / "a_img.nii.gz", tmp_path / "out")
    score_results(tmp_path / "out", tmp_path, scans=tmp_path)
    with (tmp_path / "out" / "scores.csv").open(encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    assert {row["method"] for row in rows} == {"student"}
    assert {row["effort"] for row in rows} == {"label-free (rules)"}
    assert {row["structure"] for row in rows} >= {"union", "liver", "sector tissue"}
    assert float(next(row["dice"] for row in rows if row["structure"] == "union")) > 0.8
    assert "| a    |   0.8" in (tmp_path / "out" / "evaluation_results.txt").read_text(encoding="utf-8")
