"""A result folder becomes one page, or several, that hold everything and let nothing out."""

from __future__ import annotations

import base64
import gzip
import hashlib
import io
import json
import shutil
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from PIL import Image
from result_folders import HOSTILE, Results, copied

from medseg.cli import run
from medseg.errors import MedsegError
from medseg.review.blobs import SCREEN_LEVELS, stored_grey, stored_share
from medseg.review.page import as_script_json, base64_bytes
from medseg.review.slice_pictures import slice_pictures
from medseg.review.windows import windows_of
from medseg.scans.stacks import as_frames
from medseg.workflows.reviewing import review_results

STILL, MOVING = "still_train_liver_001", "moving_train_liver_001"


class Page(HTMLParser):
    """What a browser finds in a page: elements, the text of scripts and styles, and the policy."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.scripts: list[tuple[dict[str, str | None], str]] = []
        self.styles: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self._inside: str | None = None
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._inside = tag
        if tag == "script":
            self.scripts.append((dict(attrs), ""))
        elif tag == "style":
            self.styles.append("")

    def handle_endtag(self, tag: str) -> None:
        self._inside = None

    def handle_data(self, data: str) -> None:
        if self._inside == "script":
            self.scripts[-1] = (self.scripts[-1][0], self.scripts[-1][1] + data)
        elif self._inside == "style":
            self.styles[-1] += data
        else:
            self.texts.append(data)

    @property
    def data(self) -> dict[str, Any]:
        return json.loads(next(text for attrs, text in self.scripts if attrs.get("id") == "medseg-data"))

    @property
    def blobs(self) -> dict[str, bytes]:
        kind = "application/octet-stream"
        return {attrs["id"]: base64.b64decode(text) for attrs, text in self.scripts if attrs.get("type") == kind}

    @property
    def policy(self) -> dict[str, str]:
        metas = [attrs for tag, attrs in self.tags if tag == "meta"]
        content = next(attrs["content"] for attrs in metas if attrs.get("http-equiv") == "Content-Security-Policy")
        return dict(rule.split(" ", 1) for rule in content.split("; "))


def volume(blob: bytes) -> nibabel.Nifti1Image:
    return nibabel.Nifti1Image.from_bytes(gzip.decompress(blob))


@pytest.fixture(scope="module")
def page(vessel_results: Results) -> Page:
    assert run(["review", str(vessel_results.out), "-q"]) == 0
    return Page(vessel_results.out / "review.html")


@pytest.fixture(scope="module")
def liver_page(liver_results: Results) -> Page:
    assert run(["review", str(liver_results.out), "-q"]) == 0
    return Page(liver_results.out / "review.html")


def test_the_page_holds_all_cases_in_the_order_of_the_queue(page, vessel_results):
    data = page.data
    assert data["schema"] == "medseg-review/1" and data["served"] is False and data["parts"] == []
    assert [case["rank"] for case in data["cases"]] == [1, 2, 3]
    assert sorted(case["case"] for case in data["cases"]) == sorted(["phantom_001", "phantom_002", HOSTILE])
    assert [entry["name"] for entry in data["classes"]] == ["vessel"]
    for case in data["cases"]:
        manifest = json.loads((vessel_results.out / f"{case['case']}_manifest.json").read_text(encoding="utf-8"))
        assert (case["source_sha256"], case["run_hash"]) == (manifest["source_sha256"], manifest["run_hash"])
        assert case["reasons"] and (case["unit"], case["kind"]) == ("mm", "volume")
        facts = dict(case["facts"])
        assert facts["Volume of vessel"] == f"{manifest['ml']['vessel']:.2f} ml"
        assert facts["Trained on this scan"] == "no"
        assert {name for name in page.blobs if name.startswith(case["mask"].split("-")[0])} == {
            case[kind] for kind in ("image", "mask", "probability", "uncertainty", "region")
        }


def test_masks_are_the_files_byte_for_byte_and_all_blobs_lie_on_their_grid(page, vessel_results):
    for case in page.data["cases"]:
        name = case["case"]
        mask = page.blobs[case["mask"]]
        assert mask == (vessel_results.out / f"{name}_seg.nii.gz").read_bytes()
        header = volume(mask).header
        scan = nibabel.load(vessel_results.scans / f"{name}_img.nii.gz")
        for kind in ("image", "probability", "uncertainty", "region"):
            shown = volume(page.blobs[case[kind]])
            for field in ("dim", "srow_x", "srow_y", "srow_z", "quatern_b", "qoffset_x", "sform_code", "qform_code"):
                assert np.array_equal(shown.header[field], header[field]), (kind, field)
            assert shown.header["descrip"] == b""
        assert np.array_equal(volume(page.blobs[case["image"]]).affine, scan.affine)
        assert np.array_equal(volume(page.blobs[case["image"]]).get_fdata(), scan.get_fdata())
        for kind, end in (("probability", "prob"), ("uncertainty", "uncertainty")):
            shown = volume(page.blobs[case[kind]])
            assert shown.header.get_data_dtype() == np.uint8
            assert shown.dataobj.slope == pytest.approx(1 / 255)
            kept = nibabel.load(vessel_results.out / f"{name}_{end}.nii.gz").get_fdata()
            assert np.abs(shown.get_fdata() - kept).max() <= 0.5 / 255 + 1e-6


def test_only_the_scripts_and_styles_of_the_page_may_run_and_nothing_may_leave_it(page):
    def hashes(texts):
        return {f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'" for text in texts}

    own = [text for attrs, text in page.scripts if "type" not in attrs]
    assert len(own) == 2
    assert set(page.policy["script-src"].split()) == hashes(own)
    assert set(page.policy["style-src"].split()) == hashes(page.styles)
    assert page.policy["default-src"] == page.policy["connect-src"] == "'none'"
    assert "http" not in " ".join(page.policy.values())
    outside = [attrs for _, attrs in page.tags if str(attrs.get("src") or attrs.get("href") or "").startswith("http")]
    assert not outside


def test_names_of_cases_are_text_wherever_they_stand(page, vessel_results, tmp_path):
    assert any(case["case"] == HOSTILE for case in page.data["cases"])
    assert not any(tag == "img" for tag, _ in page.tags)
    assert HOSTILE not in (vessel_results.out / "review.html").read_text(encoding="utf-8")
    out = copied(vessel_results, tmp_path)
    review_results(out, max_mb=0.001)
    index = Page(out / "review.html")
    assert not any(tag == "img" for tag, _ in index.tags)
    assert any(HOSTILE in text for text in index.texts)


@pytest.mark.parametrize(
    "text", ["</script><script>alert(1)</script>", "<!--<script>", "&lt;", "\u2028", "=cmd()", '"']
)
def test_json_in_the_page_cannot_end_its_element(text):
    written = as_script_json({"comment": text})
    assert not set(written) & set("<>&\u2028\u2029")
    assert json.loads(written) == {"comment": text}
    with pytest.raises(ValueError, match="JSON"):
        as_script_json(float("nan"))


def test_a_review_that_is_too_large_becomes_pages_with_an_index_and_old_ones_go(vessel_results, tmp_path):
    out = copied(vessel_results, tmp_path)
    mine = out / "review_of_mine.html"
    mine.write_text("not of medseg", encoding="utf-8")
    answer = review_results(out, max_mb=0.001)
    names = [Path(file).name for file in answer["files"]]
    assert names == ["review.html", "review_1.html", "review_2.html", "review_3.html"]
    assert [entry["case"] for entry in answer["queue"]] == [
        Page(out / name).data["cases"][0]["case"] for name in names[1:]
    ]
    links = [attrs["href"] for tag, attrs in Page(out / "review.html").tags if tag == "a"]
    assert links == names[1:]
    second = Page(out / "review_2.html").data
    assert (second["part"], second["index"]) == ("2 of 3", "review.html")
    assert [part["file"] for part in second["parts"]] == names[1:]
    # A limit between one and two cases beside the program.
    sizes = [(out / name).stat().st_size for name in names[1:]]
    assert len(review_results(out, max_mb=max(sizes) / 1e6 + 0.02)["files"]) == 4
    assert len(review_results(out)["files"]) == 1
    assert not (out / "review_1.html").exists() and mine.exists()
    assert not list(out.glob(".review_*"))


def test_pictures_and_cines_are_stacks_and_what_lies_outside_the_sector_is_black(liver_page, liver_results):
    cases = {case["case"]: case for case in liver_page.data["cases"]}
    assert {(case["unit"], case["kind"]) for case in cases.values()} == {("px", "frames")}
    with Image.open(liver_results.out / f"{STILL}_seg.png") as png:
        labels = np.asarray(png)
    still = as_frames(np.asarray(volume(liver_page.blobs[cases[STILL]["mask"]]).dataobj))
    assert np.array_equal(still[:, :, 0], labels)
    assert liver_page.blobs[cases[MOVING]["mask"]] == (liver_results.out / f"{MOVING}_seg.nii.gz").read_bytes()
    with Image.open(liver_results.scans / "still" / "imgs" / "train" / "liver_001.png") as png:
        grey = np.asarray(png.convert("RGB")).mean(axis=2)
    shown = as_frames(np.asarray(volume(liver_page.blobs[cases[STILL]["image"]]).dataobj))[:, :, 0]
    outside = labels == 0
    assert grey[outside].max() > 50 and shown[outside].max() == 0  # names are burnt in there
    inside = labels > 0
    assert np.mean(np.abs(shown[inside] - grey[inside]) <= 1) > 0.95
    assert cases[STILL]["probability"] is None
    with Image.open(liver_results.out / f"{STILL}_uncertainty.png") as png:
        unsure = np.asarray(png) / 255
    kept = as_frames(volume(liver_page.blobs[cases[STILL]["uncertainty"]]).get_fdata())[:, :, 0]
    assert np.allclose(kept, unsure, atol=1e-6)
    assert list(cases[MOVING]["slices"]) == ["axial"]
    assert "pixels (" in dict(cases[STILL]["facts"])["Area of liver"]
    assert liver_page.data["classes"][0] == {
        **liver_page.data["classes"][0],
        "name": "sector tissue",
        "background": True,
    }


def test_a_scan_that_is_missing_or_changed_is_left_out_with_a_line(vessel_results, tmp_path):
    out = copied(vessel_results, tmp_path)
    scans = Path(shutil.copytree(vessel_results.scans, tmp_path / "scans"))
    (scans / "phantom_001_img.nii.gz").unlink()
    shutil.copy(scans / "phantom_002_label.nii.gz", scans / f"{HOSTILE}_img.nii.gz")
    answer = review_results(out, scans=scans)
    assert sorted(answer["failed"]) == [HOSTILE, "phantom_001"]
    assert "name the scans with --scans" in answer["failed"]["phantom_001"]
    assert [entry["case"] for entry in answer["queue"]] == ["phantom_002"]
    # A scan is known by its content, whatever it is called now.
    (scans / "phantom_002_img.nii.gz").rename(scans / "other_img.nii.gz")
    assert [entry["case"] for entry in review_results(out, scans=scans)["queue"]] == ["phantom_002"]
    (scans / "other_img.nii.gz").unlink()
    with pytest.raises(MedsegError, match="must hold a case that can be shown"):
        review_results(out, scans=scans)


def test_a_mask_that_is_not_the_one_of_its_manifest_is_left_out(vessel_results, tmp_path):
    out = copied(vessel_results, tmp_path)
    shutil.copy(out / "phantom_001_seg.nii.gz", out / "phantom_002_seg.nii.gz")
    answer = review_results(out)
    assert list(answer["failed"]) == ["phantom_002"]
    assert "phantom_002_seg.nii.gz must be the file that its manifest names" in answer["failed"]["phantom_002"]


def test_grey_values_keep_what_a_screen_can_show():
    rng = np.random.default_rng(0)
    whole = rng.integers(0, 256, (5, 6, 7)).astype(np.float32)
    assert stored_grey(whole, (0, 255)).values.dtype == np.uint8
    assert stored_grey(whole - 1000, (-200, 0)).values.dtype == np.int16
    fine = rng.normal(size=(5, 6, 7)).astype(np.float32)
    window = (float(fine.min()), float(fine.max()))
    stored = stored_grey(fine, window)
    assert stored.values.dtype == np.int16
    back = stored.values * stored.slope + stored.intercept
    assert np.abs(back - fine).max() < (window[1] - window[0]) / SCREEN_LEVELS / 16
    fine[0, 0, 0] = 1e9  # one hot voxel would take all steps
    spoilt = stored_grey(fine, window)
    assert spoilt.values.dtype == np.float32 and np.array_equal(spoilt.values, fine)
    assert stored_share(np.array([[[-1.0, 0.5, 2.0]]], np.float32)).values.tolist() == [[[0, 128, 255]]]
    assert [base64_bytes(count) for count in (0, 1, 3, 4)] == [0, 4, 4, 8]


def test_windows_fit_the_modality_and_white_is_above_black():
    rng = np.random.default_rng(0)
    image = rng.normal(100, 10, (10, 10, 10)).astype(np.float32)
    region = np.zeros(image.shape, bool)
    region[5:] = True
    first = windows_of(image, "tof", region, is_picture=False)[0]
    assert (first.low, first.high) == pytest.approx(tuple(np.percentile(image[region], [2, 99.9])))
    ct = windows_of(image, "cta", None, is_picture=False)
    assert (ct[0].name, ct[0].low, ct[0].high) == ("Vessels", -100, 600)
    assert (
        windows_of(image, None, None, is_picture=True)[0].low,
        windows_of(image, None, None, is_picture=True)[0].high,
    ) == (0, 255)
    even = np.zeros((4, 4, 4), np.float32)
    even[0, 0, 0] = 5
    for modality in ("tof", "ce_mra", "cta", "liver_ultrasound", None):
        assert all(window.high > window.low for window in windows_of(even, modality, None, is_picture=False))


def test_slices_show_the_mask_on_the_patients_side_in_true_proportions():
    image = np.zeros((10, 20, 30), np.float32)
    labels = np.zeros(image.shape, np.uint8)
    labels[:3, 15:, 20:] = 1  # right, anterior, superior in RAS: index 0 of i lies to the patient's left of index 9
    affine = np.diag([-2.0, 1.0, 1.0, 1.0])  # LAS: so index 0 is the rightmost
    drawn = slice_pictures(image, labels, affine, (0, 1), colours={1: "#ff0000"})
    assert list(drawn) == ["axial", "coronal", "sagittal"]
    pictures = {}
    for name, uri in drawn.items():
        with Image.open(io.BytesIO(base64.b64decode(uri.removeprefix("data:image/png;base64,")))) as png:
            pictures[name] = np.asarray(png)
    assert pictures["axial"].shape[0] == pictures["axial"].shape[1] == 512  # 20 mm by 20 mm
    red = (pictures["axial"][..., 0] > 50) & (pictures["axial"][..., 1] < 50)
    rows, columns = np.nonzero(red)
    assert columns.mean() < 256 and rows.mean() < 256  # the patient's right is on the left, the front above
