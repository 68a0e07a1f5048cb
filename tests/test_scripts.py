"""This file tests the ancestors' commands in `scripts/`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from commands import main_of, module_of

from medseg.errors import MedsegError
from medseg.features.student.vessels.student import shipped_student
from medseg.files import hash_file
from medseg.phantoms.hard import hard_case
from medseg.phantoms.vessels import write_phantoms

SMALL = [
    "stego.steps=4", "stego.batch=4", "patches.per_case=12", "patches.size=24", "stego.fit_points=600",
    "prepare.brain_mask=none", "student.steps=0", "stego.voters=1",
]  # fmt: skip


@pytest.fixture(scope="module")
def scans(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("phantoms")
    write_phantoms(folder, cases=3, seed=5, shape=(48, 48, 32), spacing=(0.8, 0.8, 0.8))
    return folder


def test_another_size_scheme_or_seed_trains_another_model(scans: Path, tmp_path: Path) -> None:
    main = main_of("volume_reconstruction")
    weights = set()
    for name, size, seed in (("R", "50%", "1"), ("R", "1", "1"), ("CFX", "50%", "1"), ("R", "0.5", "42")):
        request = ["--dataset_name", name, "--n_size", size, "--current_seed", seed]
        assert main([*request, "--scans", str(scans), "--output_root", str(tmp_path), *SMALL]) == 0
        out = tmp_path / f"{name}_{0.5 if size != '1' else 1:g}_{seed}"
        weights.add(hash_file(out / "run" / "methods" / "stego" / "weights.safetensors"))
        assert (
            (out / "evaluation_results.txt").read_text(encoding="utf-8").startswith(f"Results for {out.name} dataset")
        )
        assert len(list(out.glob("*_seg.nii.gz"))) == 1  # the held-out patient only
    assert len(weights) == 4


def test_a_size_of_5_is_an_error_because_5_percent_is_meant(tmp_path: Path) -> None:
    with pytest.raises(MedsegError, match="5%"):
        main_of("volume_reconstruction")(["--dataset_name", "R", "--n_size", "5", "--scans", str(tmp_path)])


def test_the_shipped_student_learns_exact_labels_and_no_vein(tmp_path: Path) -> None:
    script = module_of("train_shipped_student")
    volume = script.training_volume(tmp_path, seed=0, number=1, side=48)
    labels = np.array(volume.labels)
    assert set(np.unique(labels)) <= {0, 1, 2}
    assert (labels[np.array(volume.region) == 0] == 2).all()
    assert script.training_volume(tmp_path, seed=0, number=1, side=48).key == volume.key


def test_the_shipped_student_is_compared_with_the_rule_inside_the_brain_mask() -> None:
    small = replace(hard_case("aneurysm"), shape=(64, 64, 48))
    row = module_of("train_shipped_student").compare(shipped_student(), small)
    assert row["case"] == "aneurysm"
    for method in ("flux", "gated student"):
        assert 0.5 < row[method]["dice"] <= 1
