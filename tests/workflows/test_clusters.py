"""This file tests the gallery of a tiny run's clusters, and that a run becomes what its gallery showed."""

from __future__ import annotations

import base64
import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from medseg.cli import run as medseg
from medseg.errors import MedsegError
from medseg.files import read_json
from medseg.naming.classes import read_classes
from medseg.phantoms.vessels import write_phantoms
from medseg.review.gallery.places import STRIP
from medseg.runs import open_run
from medseg.scans.arrays import read_values
from medseg.stego.model import ClusterModel, unit
from medseg.workflows import choosing, clusters
from medseg.workflows.cluster_patches import PageSpace, chosen_patches
from medseg.workflows.clusters import set_clusters, show_clusters
from medseg.workflows.run_patches import kept_patches
from medseg.workflows.training import train_run

SMALL = (
    "stego.steps=4", "stego.batch=4", "stego.voters=2", "patches.per_case=10", "patches.size=24",
    "stego.fit_points=500", "stego.clusters=5", "prepare.brain_mask=none",
    "run.checkpoint_every=4",
)  # fmt: skip


@pytest.fixture(scope="module")
def scans(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("phantoms")
    write_phantoms(folder, cases=2, seed=5, shape=(48, 44, 36), spacing=(0.7, 0.7, 0.8))
    return folder


@pytest.fixture(scope="module")
def trained(scans: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("trained") / "run"
    train_run("tof_mra_bank", scans, run, overrides=SMALL)
    return run


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(trained, tmp_path / "run"))


@pytest.fixture(autouse=True)
def _few_numbers_of_clusters(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clusters, "MOST", 8)


def _page_data(path: Path) -> dict[str, Any]:
    found = re.search(r'id="medseg-data">(.*?)</script>', path.read_text(encoding="utf-8"), re.DOTALL)
    assert found
    return json.loads(found[1])


def _codes(data: dict[str, Any]) -> np.ndarray:
    stored = data["codes"]
    values = np.frombuffer(base64.b64decode(stored["bytes"]), np.uint8).reshape(stored["shape"])
    return np.array(stored["low"])[:, None, None] + np.array(stored["step"])[:, None, None] * values


def test_the_runs_own_clusters_are_those_of_its_method(run: Path, tmp_path: Path) -> None:
    answer = show_clusters(run, tmp_path / "out")
    data = _page_data(tmp_path / "out" / "clusters.html")
    model = ClusterModel.load(run / "methods" / "stego")
    assert data["own"] == model.clusters == 5 and [one["k"] for one in data["clusterings"]] == list(range(2, 9))
    own = data["clusterings"][3]
    prototypes = model.prototypes if model.metric == "euclidean" else unit(model.prototypes)
    assert np.array(own["prototypes"]) == pytest.approx(prototypes.numpy(), abs=1e-6)
    cards = read_json(run / "methods" / "stego" / "cards.json")["cards"]
    assert [card["facts"] for card in own["cards"]] == [card["facts"] for card in cards]
    named = read_classes(run / "methods" / "stego" / "classes.yaml")
    names = {n: entry.name for entry in named.classes for n in entry.clusters}
    assert [card["name"] for card in own["cards"]] == [names.get(n) for n in range(5)]
    assert all(card["reason"] and 0 <= card["sure"] <= 1 for card in own["cards"])
    assert answer["agreement"] > 0.97 and any("2 voters" in note for note in answer["notes"])
    written = read_json(tmp_path / "out" / "clusters.json")
    assert written == {key: answer[key] for key in written}
    assert set(written) == {
        "schema", "run", "method", "voter", "voters", "metric", "clusters", "cards", "ks", "agreement", "notes"
    }  # fmt: skip
    assert written["ks"]["5"] == [card["name"] for card in own["cards"]]


def test_the_page_gives_places_to_the_clusters_of_the_method(run: Path, tmp_path: Path) -> None:
    answer = show_clusters(run, tmp_path / "page.html")
    assert (tmp_path / "page.json").is_file()
    data, model = _page_data(tmp_path / "page.html"), ClusterModel.load(run / "methods" / "stego")
    dataset = kept_patches(open_run(run))
    agree = []
    codes = _codes(data)
    for number, index in enumerate(chosen_patches(dataset, 64)):
        features = dataset[index]["features"]
        assigned = model.assign(features.flatten(1).T).view(features.shape[1:]).numpy()
        far = [
            np.square(codes[number] - np.array(p)[:, None, None]).sum(0) for p in data["clusterings"][3]["prototypes"]
        ]
        agree.append(np.argmin(far, axis=0) == np.flip(assigned.T, (0, 1)))
    assert np.mean(agree) == pytest.approx(answer["agreement"], abs=1e-9) and np.mean(agree) > 0.97


def test_a_place_in_mm_is_where_its_grey_value_is(run: Path, scans: Path, tmp_path: Path) -> None:
    show_clusters(run, tmp_path / "page.html")
    data = _page_data(tmp_path / "page.html")
    written = read_json(tmp_path / "page.json")
    image = {name: read_values(scans / f"{name}_img.nii.gz") for name in ("phantom_001", "phantom_002")}
    shown = np.frombuffer(base64.b64decode(data["images"]["bytes"]), np.uint8).reshape(data["images"]["shape"])
    of_place, of_scan = [], []
    for card in written["cards"]:
        assert len(card["typical"]) <= STRIP
        for place in card["typical"] + card["borderline"]:
            values, grid = image[place["case"]]
            i, j, k = np.rint(np.linalg.solve(grid.affine, [*place["position"], 1])[:3]).astype(int)
            for source, picture in zip(data["patches"], shown, strict=True):
                slice_index, row, column = source["location"]
                inside = (place["row"] - row, place["column"] - column)
                if (
                    source["case"] == place["case"]
                    and slice_index == place["slice"]
                    and max(inside) < 24 > -min(inside)
                ):
                    if min(inside) < 0:
                        continue
                    of_place.append(int(picture[23 - inside[1], 23 - inside[0], 0]))
                    of_scan.append(float(values[i, j, k]))
    bright = np.array(of_place) < 255  # not cut off by the window
    assert bright.sum() > 20
    assert np.corrcoef(np.array(of_place)[bright], np.array(of_scan)[bright])[0, 1] > 0.98


def test_a_run_becomes_what_its_gallery_showed(run: Path, tmp_path: Path) -> None:
    before = show_clusters(run, tmp_path / "before.html")
    asked = next(one for one in _page_data(tmp_path / "before.html")["clusterings"] if one["k"] == 3)
    run_hash = open_run(run).run_hash()
    kmeans = (run / "methods" / "kmeans" / "weights.safetensors").read_bytes()
    for path in (run / "voters" / "2" / "methods" / "stego", run / "methods" / "stego"):
        assert ClusterModel.load(path).clusters == 5
    answer = set_clusters(run, 3)
    assert answer["clusters"] == 3 and answer["names"] == before["ks"]["3"]
    for path in (run / "voters" / "2" / "methods" / "stego", run / "methods" / "stego"):
        assert ClusterModel.load(path).clusters == 3 and len(read_json(path / "cards.json")["cards"]) == 3
        assert read_json(path / "choice.json")["signal"] == "--set-clusters"
    assert (run / "methods" / "kmeans" / "weights.safetensors").read_bytes() == kmeans
    assert open_run(run).run_hash() != run_hash
    show_clusters(run, tmp_path / "after.html")
    data = _page_data(tmp_path / "after.html")
    now = next(one for one in data["clusterings"] if one["k"] == 3)
    assert data["own"] == 3 and now["prototypes"] == asked["prototypes"]
    assert [{**card, "colour": ""} for card in now["cards"]] == [{**card, "colour": ""} for card in asked["cards"]]
    weights = (run / "methods" / "stego" / "weights.safetensors").read_bytes()
    set_clusters(run, 3)
    assert (run / "methods" / "stego" / "weights.safetensors").read_bytes() == weights


def test_an_interrupted_change_is_ended_by_the_same_command(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(choosing, "name_methods", interrupt)
        set_clusters(run, 3)
    with pytest.raises(MedsegError, match="trained to the end"):  # no names of other clusters are shown
        show_clusters(run)
    answer = set_clusters(run, 3)
    assert answer["names"] == set_clusters(run, 3)["names"] and "out of date" in answer["lines"][-1]
    for folder in open_run(run).method_folders("stego"):
        assert ClusterModel.load(folder).clusters == len(read_json(folder / "cards.json")["cards"]) == 3
        assert (folder / "classes.yaml").is_file()


def test_voters_that_have_the_number_follow_the_first_where_it_changes(run: Path) -> None:
    set_clusters(run, 3)
    first, second = open_run(run).method_folders("stego")
    keep = {path.name: path.read_bytes() for path in second.iterdir()}
    set_clusters(run, 4)
    for name, content in keep.items():
        (second / name).write_bytes(content)  # as after `medseg choose`, where each voter has its own number
    set_clusters(run, 3)
    assert (second / "choice.json").stat().st_mtime_ns >= (first / "choice.json").stat().st_mtime_ns
    assert "out of date" not in set_clusters(run, 3)["lines"][-1]


def test_features_are_reduced_and_it_is_said(run: Path, tmp_path: Path) -> None:
    answer = show_clusters(run, tmp_path / "kmeans.html", method="kmeans")
    data = _page_data(tmp_path / "kmeans.html")
    assert data["method"] == "kmeans" and not data["changeable"]
    assert data["codes"]["shape"][1] < kept_patches(open_run(run)).feature_dim
    assert any(re.search(r"reduced to \d+, which keep 99\.\d %", note.replace("%", " %")) for note in answer["notes"])
    assert answer["agreement"] > 0.9


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
def test_reduced_codes_keep_their_distances(metric: str) -> None:
    random = torch.Generator().manual_seed(1)
    codes = torch.randn(300, 40, generator=random) * torch.logspace(0, -3, 40) + 1
    space = PageSpace.of(codes, metric)
    projected = space.project(codes)
    values = (unit(codes) if metric == "cosine" else codes).double()
    whole = torch.cdist(values, values).square().sum()
    kept = torch.cdist(torch.from_numpy(projected), torch.from_numpy(projected)).square().sum()
    assert projected.shape[1] < 20 and 0.99 < float(kept / whole) < 1
    assert float(kept / whole) == pytest.approx(space.kept, abs=1e-6)


def test_colours_stay_with_clusters_that_stay() -> None:
    points = np.repeat(np.arange(4), 10)
    fitted = {
        3: clusters._Fitted(np.zeros((3, 1)), np.minimum(points, 2)),
        4: clusters._Fitted(np.zeros((4, 1)), 3 - points),  # the same in another order, the last one in two
    }
    colours = clusters._lasting_colours(fitted, own=3)
    assert len(set(colours[4])) == 4
    assert colours[4][3] == colours[3][0] and colours[4][2] == colours[3][1] and colours[3][2] in colours[4][:2]


def test_patches_come_from_all_cases_and_are_salient(run: Path) -> None:
    dataset = kept_patches(open_run(run))
    chosen = chosen_patches(dataset, 6)
    assert np.bincount(dataset.store_index[chosen]).tolist() == [3, 3]
    for case in (0, 1):
        salience = [
            float(dataset.salience(n).clamp_min(0).mean()) for n in np.flatnonzero(dataset.store_index == case).tolist()
        ]
        mine = [float(dataset.salience(n).clamp_min(0).mean()) for n in chosen if dataset.store_index[n] == case]
        assert min(mine) >= np.median(salience)
    assert len(chosen_patches(dataset, 1)) == 1 and len(chosen_patches(dataset, 999)) == len(dataset)


def test_what_cannot_be_shown_is_one_line(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(MedsegError, match="stego, kmeans, got flux"):
        show_clusters(run, method="flux")
    for wrong in (1, 9):
        with pytest.raises(MedsegError, match=f"from 2 to 8, got {wrong}"):
            set_clusters(run, wrong)
    assert medseg(["clusters", str(run), "--set-clusters", "3", "-o", str(tmp_path)]) == 1
    assert "without --method and -o" in capsys.readouterr().err
    (run / "methods" / "stego" / "cards.json").unlink()
    with pytest.raises(MedsegError, match="imported checkpoint"):
        show_clusters(run)
    shutil.rmtree(run / "features")
    with pytest.raises(MedsegError, match="patches that are stored"):
        show_clusters(run, method="kmeans")
    shutil.rmtree(run / "methods")
    with pytest.raises(MedsegError, match="trained to the end"):
        show_clusters(run)
