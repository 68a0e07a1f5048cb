"""The gallery, driven in a browser as a radiologist would: from a file, without a network.

The painted patches have three kinds of places: dark (code 0, 0), bright (code 4, 0) and a few between them.
"""

import io
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from opened_page import EVIL, OpenedPage, needs_browser
from PIL import Image

from medseg.errors import MedsegError
from medseg.naming.cards import MEASUREMENTS
from medseg.review.gallery.page import Card, Clustering, stored_codes, write_gallery
from medseg.review.gallery.patches import Patches, ShownPatch
from medseg.review.gallery.places import APART, STRIP, Place, assign, borderline_places, typical_places

SIDE, SIZE = 8, 24
"""Cells along a side of the code maps, and voxels along a side of a patch."""
PROTOTYPES = {
    2: np.array([[0.0, 0], [4, 0]]),
    3: np.array([[0.0, 0], [4, 0], [2, 1]]),
    4: np.array([[0.0, 0], [4, 0], [2, 1], [9, 9]]),
}
AFFINE = np.array([[0.0, 0.5, 0, 10], [-0.7, 0, 0, 20], [0, 0, 2, -30], [0, 0, 0, 1]])
HEAD = {"title": "Clusters", "created": "now", "run": "run", "method": "stego", "changeable": True, "notes": [EVIL]}


def _patches(*, count: int = 12, name: str = "case", turned: bool = True) -> Patches:
    random = np.random.default_rng(1)
    codes = random.normal(0, 0.3, (count, 2, SIDE, SIDE))
    codes[:, 0, 2:5, 1:6] += 4
    codes[:, 0, 5, :] += 2
    images = (60 + 30 * codes[:, :1].repeat(3, 2).repeat(3, 3)).clip(0, 255).astype(np.uint8)
    inside = np.ones((count, SIDE, SIDE), bool)
    inside[:, 0] = False
    sources = [ShownPatch(f"{name} {n // 6}", (n, 5 + n, 7), AFFINE, "mm", True) for n in range(count)]
    sources[1:2] = [ShownPatch(f"{name} 0", (0, 6, 8), AFFINE, "mm", True)][: count - 1]  # a voxel from the first
    return Patches(sources, np.moveaxis(images, 1, -1), codes, inside, "axial", SIZE, turned)


def _card(cluster: int, **more: Any) -> Card:
    facts = {"share": 0.5 / (cluster + 1)} | {
        f"{statistic}_brightness": value + cluster
        for statistic, value in {"mean": 1.1, "median": 1.0, "p10": 0.5, "p90": 1.5}.items()
    }
    named = {"name": "vessel", "sure": 0.42, "reason": f"cluster {cluster} is vessel: bright"} if cluster == 1 else {}
    known = {"name": None, "sure": None, "reason": ""} | named | more
    return Card(
        cluster, ("#ff0000", "#00ff00", "#0000ff", "#ffff00")[cluster], share=facts["share"], facts=facts, **known
    )


def _write(folder: Path, patches: Patches, **card: Any) -> Path:
    clusterings = {k: Clustering(found, [_card(n, **card) for n in range(k)]) for k, found in PROTOTYPES.items()}
    path = folder / "clusters.html"
    write_gallery(path, HEAD, patches, stored_codes(patches.codes), clusterings, own=3, words=MEASUREMENTS)
    return path


@pytest.fixture(scope="module")
def page_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _write(tmp_path_factory.mktemp("gallery"), _patches())


@pytest.fixture
def opened(browser: Any, page_file: Path) -> Iterator[OpenedPage]:
    page = OpenedPage(browser, page_file)
    yield page
    page.close()


def _pixels(page: OpenedPage, selector: str) -> np.ndarray:
    shot = page.page.locator(selector).first.screenshot()
    return np.asarray(Image.open(io.BytesIO(shot)).convert("RGB")).astype(int)


def _close(patches: Patches, one: Place, other: Place) -> bool:
    if patches.sources[one.patch].case != patches.sources[other.patch].case:
        return False
    here, there = patches.stored_place(one.patch, one.cell), patches.stored_place(other.patch, other.cell)
    apart = max(abs(here[1] - there[1]), abs(here[2] - there[2]))
    return here[0] == there[0] and apart < APART * SIZE


@pytest.mark.parametrize("k", PROTOTYPES)
def test_strips_hold_the_places_that_a_slow_loop_finds(k):
    patches = _patches()
    codes = stored_codes(patches.codes).codes
    found = assign(codes, PROTOTYPES[k])
    for cluster in range(k):
        distances, margins = [], []
        for patch in range(len(codes)):
            best: dict[str, Place] = {}
            for cell in range(SIDE * SIDE):
                row, column = divmod(cell, SIDE)
                far = [((codes[patch, :, row, column] - centre) ** 2).sum() for centre in PROTOTYPES[k]]
                order = sorted(range(k), key=lambda n, far=far: far[n])
                if order[0] != cluster or not patches.inside[patch, row, column]:
                    continue
                place = Place(patch, cell, order[1], far[cluster], far[order[1]] - far[cluster])
                best.setdefault("distance", place)
                best.setdefault("margin", place)
                for by, kept in best.items():
                    if getattr(place, by) < getattr(kept, by):
                        best[by] = place
            distances += [best["distance"]] if best else []
            margins += [best["margin"]] if best else []
        for places, by, strip in (
            (distances, "distance", typical_places(found, patches, cluster)),
            (margins, "margin", borderline_places(found, patches, cluster)),
        ):
            expected: list[Place] = []
            for place in sorted(places, key=lambda place, by=by: getattr(place, by)):
                if len(expected) < STRIP and not any(_close(patches, place, other) for other in expected):
                    expected.append(place)
            assert [(p.patch, p.cell, p.next_cluster) for p in strip] == [
                (p.patch, p.cell, p.next_cluster) for p in expected
            ]
            assert [getattr(p, by) for p in strip] == pytest.approx([getattr(p, by) for p in expected])
        assert cluster == 3 or len(strip) == STRIP


def test_a_marked_voxel_lies_where_its_place_says():
    patches = _patches(count=1)
    stored = np.zeros((SIDE, SIDE))
    stored[2, 5] = 1  # row 2, column 5 of the patch on the prepared grid
    shown = np.flip(stored.T, (0, 1))
    cell = int(shown.argmax())
    assert patches.stored_place(0, cell) == (0, 5 + 7, 7 + 16)  # middle of the cell, three voxels a cell
    assert patches.position(0, cell) == pytest.approx((AFFINE @ [12, 23, 0, 1])[:3])
    upright = _patches(count=1, turned=False)
    assert upright.stored_place(0, int(stored.argmax())) == (0, 12, 23)


@needs_browser
def test_the_page_assigns_as_python_does_for_every_k(opened):
    patches = _patches()
    codes = stored_codes(patches.codes).codes
    opened.key("ArrowLeft", "ArrowLeft")
    for k, prototypes in PROTOTYPES.items():
        assert opened.do("medseg.state.k") == k
        found = assign(codes, prototypes)
        assert (np.array(opened.do("medseg.state.clusters")) == found.cluster.ravel()).all()
        for cluster in range(k):
            for kind, strip in (("typical", typical_places), ("borderline", borderline_places)):
                shown = opened.do(f"medseg.{kind}({cluster})")
                expected = strip(found, patches, cluster)
                assert [(p["patch"], p["cell"], p["next"]) for p in shown] == [
                    (p.patch, p.cell, p.next_cluster) for p in expected
                ]
                for place in shown:
                    assert place["position"] == pytest.approx(patches.position(place["patch"], place["cell"]))
        opened.key("ArrowRight")
    assert "unknown" not in opened.text("#cards") and opened.page.locator(".card").count() == 4


@needs_browser
def test_the_slider_changes_the_picture_and_the_cards(opened):
    assert opened.text("#k") == "3" and "as the run has them" in opened.text("#own")
    assert opened.page.locator("#set").is_hidden()
    before = _pixels(opened, "#patches canvas")
    assert opened.page.locator(".card").count() == 3
    opened.page.locator("#slider").focus()
    opened.key("ArrowLeft")  # the slider's own key moves by one, too
    assert opened.text("#k") == "2" and opened.page.locator(".card").count() == 2
    after = _pixels(opened, "#patches canvas")
    blue = (before[..., 2] > before[..., 1] + 60) & (before[..., 2] > before[..., 0] + 60)  # the third cluster
    assert blue.mean() > 0.05
    assert (np.abs(after - before).max(-1)[blue] > 60).mean() > 0.9
    assert "medseg clusters RUN --set-clusters 2" in opened.text("#set")
    opened.page.get_by_role("button", name="Back").click()
    opened.do("0")
    assert opened.text("#k") == "3" and (_pixels(opened, "#patches canvas") == before).all()


@needs_browser
def test_grey_shows_the_patches_alone(opened):
    assert np.ptp(_pixels(opened, "#patches canvas"), axis=-1).max() > 60
    opened.key("g")
    assert np.ptp(_pixels(opened, "#patches canvas"), axis=-1).max() < 10  # the page shows at its round corners
    assert opened.page.locator("#grey").get_attribute("aria-pressed") == "true"
    opened.page.get_by_role("button", name="Clusters", exact=True).click()
    opened.do("0")
    assert np.ptp(_pixels(opened, "#patches canvas"), axis=-1).max() > 60


@needs_browser
def test_a_card_tells_name_reason_numbers_and_places(opened):
    first = opened.page.locator(".card").first
    words = first.inner_text()
    for part in (
        "1 vessel",
        "Sure 42 %",
        "cluster 1 is vessel: bright",
        "25 % of the sample",
        "median 2, 80 % from 1.5",
    ):
        assert part in " ".join(words.split()), part
    assert MEASUREMENTS["brightness"] in words
    assert first.locator(".typical figure").count() == STRIP
    place = opened.do("medseg.borderline(1)")[0]
    caption = first.locator(".borderline figcaption").first.inner_text()
    assert f"case {place['patch'] // 6}" in caption and re.search(r"next\s+2", caption)
    assert " ".join(f"{value:.1f}" for value in place["position"]) + " mm" in caption
    # only this cluster is tinted, and the cross stands on the place
    tile = _pixels(opened, ".typical canvas")
    green = (tile[..., 1] > tile[..., 0] + 60) & (tile[..., 1] > tile[..., 2] + 60)
    assert 0.1 < green.mean() < 0.5
    assert not ((tile[..., 0] > tile[..., 1] + 60) | (tile[..., 2] > tile[..., 1] + 60)).any()
    y, x = np.argwhere((tile > 160).all(-1)).mean(axis=0) / tile.shape[:2]
    row, column = divmod(opened.do("medseg.typical(1)")[0]["cell"], SIDE)
    assert (y, x) == pytest.approx(((row + 0.5) / SIDE, (column + 0.5) / SIDE), abs=0.05)


@needs_browser
def test_pointing_says_which_cluster_lies_there(opened):
    box = opened.page.locator("#patches canvas").first.bounding_box()
    opened.page.mouse.move(box["x"] + box["width"] * 3.5 / SIDE, box["y"] + box["height"] * 3.5 / SIDE)
    assert re.search(r"case 0.*: cluster 1 vessel", opened.text("#pointed"))
    opened.page.mouse.move(box["x"] + box["width"] * 3.5 / SIDE, box["y"] + box["height"] * 0.5 / SIDE)
    assert opened.text("#pointed").endswith("outside")


@needs_browser
def test_the_page_is_whole_and_asks_nobody(opened):
    assert "Research use only" in opened.text("#research")
    policy = opened.page.locator("meta[http-equiv]").get_attribute("content")
    assert "default-src 'none'" in policy and "unsafe" not in policy and "connect-src 'none'" in policy
    assert opened.page.locator("#slider").get_attribute("aria-valuetext") == "3 clusters, as the run has them"


@needs_browser
def test_names_are_text(browser, tmp_path):
    page = OpenedPage(browser, _write(tmp_path, _patches(name=EVIL), name=EVIL, reason=f"</script>{EVIL}"))
    page.key("ArrowRight")
    assert (
        EVIL in page.text("#cards h3") if page.page.locator("#cards h3").count() == 1 else EVIL in page.text("#cards")
    )
    assert EVIL in page.text("#notes") and EVIL in page.text("#legend") and EVIL in page.text("#patches")
    assert page.page.locator("body img").count() == 0 and page.page.title() == "Clusters"
    page.close()


@needs_browser
@pytest.mark.parametrize("width", [390, 800, 1440])
def test_every_width_holds_the_strips(browser, page_file, width):
    page = OpenedPage(browser, page_file, viewport={"width": width, "height": 780})
    assert page.do("document.documentElement.scrollWidth") <= width
    tops = [
        box["y"]
        for box in page.do(
            "[...document.querySelectorAll('.typical')][0].children.length && "
            "[...document.querySelector('.typical').children].map((tile) => tile.getBoundingClientRect().toJSON())"
        )
    ]
    assert len(set(tops)) == (2 if width < 600 else 1)
    page.close()


def test_a_page_that_is_too_large_is_one_line(tmp_path):
    patches = _patches()
    one = {2: Clustering(PROTOTYPES[2], [_card(0), _card(1)])}
    with pytest.raises(MedsegError, match=r"at most 0\.001 MB, got .* for 12 patches; take fewer patches"):
        write_gallery(
            tmp_path / "a.html", HEAD, patches, stored_codes(patches.codes), one, own=2, words={}, max_mb=0.001
        )
    assert not list(tmp_path.iterdir())


def test_codes_keep_their_values_to_half_a_step():
    codes = np.random.default_rng(2).normal(size=(3, 4, 5, 6)) * np.array([1, 10, 0, 1e-3])[:, None, None]
    stored = stored_codes(codes)
    assert (np.abs(stored.codes - codes) <= stored.step[:, None, None] * 0.5001).all()
    assert json.dumps(stored.low.tolist()) and (stored.codes[:, 2] == 0).all()


def test_no_script_can_end_its_element():
    folder = Path(__file__).parents[3] / "medseg/review/gallery"
    for path in folder.glob("*.js"):
        assert not re.search(r"</script|<!--", path.read_text(encoding="utf-8"), re.IGNORECASE)
