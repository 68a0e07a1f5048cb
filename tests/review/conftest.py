"""Results that the application itself wrote, for everything that is made of results."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from opened_page import BROWSER
from result_folders import HOSTILE, Results

from medseg.cli import run
from medseg.phantoms.liver_files import write_liver_phantoms
from medseg.phantoms.vessels import write_phantoms


@pytest.fixture(scope="session")
def vessel_results(tmp_path_factory: pytest.TempPathFactory) -> Results:
    """Three angiograms by the flux rule; the name of one is markup."""
    scans, out = tmp_path_factory.mktemp("angiograms"), tmp_path_factory.mktemp("vessels")
    write_phantoms(scans, cases=3, seed=5, shape=(40, 36, 28), spacing=(0.7, 0.7, 0.8))
    for kind in ("img", "mask", "label"):
        (scans / f"phantom_003_{kind}.nii.gz").rename(scans / f"{HOSTILE}_{kind}.nii.gz")
    assert run(["segment", str(scans), "-o", str(out), "--method", "flux", "-q"]) == 0
    return Results(out, scans)


@pytest.fixture(scope="session")
def liver_results(tmp_path_factory: pytest.TempPathFactory) -> Results:
    """A picture and a cine of three frames by the liver's rule."""
    scans, out = tmp_path_factory.mktemp("ultrasound"), tmp_path_factory.mktemp("livers")
    write_liver_phantoms(scans / "still", cases=1, seed=3, size="small")
    write_liver_phantoms(scans / "moving", cases=1, seed=4, size="small", form="cines", frames=3)
    given = [str(scans / "still"), str(scans / "moving")]
    assert run(["segment", *given, "-o", str(out), "--modality", "liver_ultrasound", "--method", "teacher", "-q"]) == 0
    return Results(out, scans)


@pytest.fixture(scope="module")  # Playwright refuses a second one beside it, as another module may start
def browser() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed (extra `dev`)")
    with playwright.sync_playwright() as engine:
        started = engine.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        yield started
        started.close()
