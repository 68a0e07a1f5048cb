"""A process that is killed and a scan that goes away: what was whole stays whole, and the same command goes on."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from medseg.cli import run
from medseg.files import hash_file, write_json
from medseg.phantoms.vessels import write_phantoms
from medseg.runs import RunRecord
from medseg.scans.folders import find_cases
from medseg.workflows import reconstruction, segmentation
from medseg.workflows.manifests import read_manifests

KILLED = """
import os, signal, sys
from pathlib import Path
from medseg.files import replacing
with replacing(Path(sys.argv[1])) as beside:
    beside.write_text("half", encoding="utf-8")
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture(scope="module")
def scans(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scans")
    write_phantoms(folder, cases=2, seed=5, shape=(36, 32, 28), spacing=(0.7, 0.7, 0.8))
    return folder


def kill_while_writing(path: Path) -> Path:
    """A process writes half of a file and is killed; what it leaves."""
    before = set(path.parent.iterdir())
    status = subprocess.run([sys.executable, "-c", KILLED, str(path)], check=False).returncode
    assert status == -9
    (left,) = set(path.parent.iterdir()) - before
    assert left.read_text(encoding="utf-8") == "half"
    return left


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
def test_what_a_killed_process_leaves_is_no_result_no_scan_and_no_part_of_a_model(tmp_path: Path, scans: Path) -> None:
    manifest = {"case": "a", "source": "a.nii", "method": "flux", "named_by": "rules", "ml": {}, "run_hash": "0"}
    manifest |= {"trained_on_this_case": False, "seconds": 1, "peak_memory_mb": 1, "source_sha256": "0"}
    write_json(tmp_path / "a_manifest.json", manifest)
    earlier = (tmp_path / "a_manifest.json").read_bytes()
    left = kill_while_writing(tmp_path / "a_manifest.json")
    assert left.name.startswith(".") and (tmp_path / "a_manifest.json").read_bytes() == earlier
    kill_while_writing(tmp_path / "b_manifest.json")
    found, damaged = read_manifests(tmp_path)
    assert [entry["case"] for entry in found] == ["a"] and not damaged
    mine = Path(shutil.copytree(scans, tmp_path / "mine"))
    kill_while_writing(mine / "phantom_009_img.nii.gz")
    assert [case.case_id for case in find_cases(mine).cases] == ["phantom_001", "phantom_002"]


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
def test_a_half_written_weight_does_not_change_what_a_run_is(tmp_path: Path) -> None:
    from medseg.config import load_config

    record = RunRecord(tmp_path, load_config("tof_mra_bank"), {})
    weights = tmp_path / "methods" / "stego" / "weights.safetensors"
    weights.parent.mkdir(parents=True)
    weights.write_bytes(b"whole")
    before = record.run_hash()
    kill_while_writing(weights)
    assert record.run_hash() == before
    weights.write_bytes(b"other")
    assert record.run_hash() != before


def test_a_scan_that_goes_away_is_one_line_and_the_others_go_on(
    scans: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = Path(shutil.copytree(scans, tmp_path / "mine"))
    gone, kept = mine / "phantom_001_img.nii.gz", tmp_path / "kept.nii.gz"
    write_cases = reconstruction.write_cases

    def after_a_deletion(*arguments: object, **others: object) -> object:
        gone.rename(kept)
        return write_cases(*arguments, **others)

    for module in (reconstruction, segmentation):
        monkeypatch.setattr(module, "write_cases", after_a_deletion)
    command = ["segment", str(mine), "-o", str(tmp_path / "out"), "--method", "flux", "-q"]
    assert run(command) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("medseg: ") and str(gone) in line
    assert [path.name for path in (tmp_path / "out").glob("*_seg.nii.gz")] == ["phantom_002_seg.nii.gz"]
    assert "phantom_001" in json.loads((tmp_path / "out" / "summary.json").read_text(encoding="utf-8"))["failed"]
    before = hash_file(tmp_path / "out" / "phantom_002_seg.nii.gz")
    monkeypatch.undo()
    kept.rename(gone)
    assert run(command) == 0
    assert hash_file(tmp_path / "out" / "phantom_002_seg.nii.gz") == before
    assert (tmp_path / "out" / "phantom_001_seg.nii.gz").is_file()
