"""The annotation page, driven in a browser as an annotator would: from a file, without a network.

A *marker* is a bright block of voxels. The cell that is ticked where the marker is seen must hold the marker's voxels.
"""

import gzip
import io
import json
import re
from base64 import b64decode
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from opened_page import EVIL, OpenedPage, needs_browser
from PIL import Image
from scipy import ndimage

from medseg.errors import MedsegError
from medseg.naming.annotations import cells_along, cut_cell, read_annotations, slice_axis
from medseg.review.annotator.page import case_data, write_annotation_page
from medseg.scans.grids import Grid, spread_slices

NO_STORAGE = "Object.defineProperty(window, 'indexedDB', {get() { throw new Error('denied'); }});"
CLOCK = "let now = 0; performance.now = () => now; window.pass = (seconds) => void (now += 1000 * seconds);"
CELL = 8
SHAPE = (29, 37, 26)
"""No length is a multiple of the cell's."""
TURN = np.array([[0.94, -0.34, 0], [0.34, 0.94, 0], [0, 0, 1]]) @ [[1, 0, 0], [0, 0.97, -0.26], [0, 0.26, 0.97]]
DIRECTIONS = {
    "RAS": (np.eye(3), (1, 1, 1)),
    "LAS": (np.diag([-1.0, 1, 1]), (1, 1, 1)),
    "oblique LAS": (TURN * [-1, 1, 1], (0.8, 0.8, 1.2)),
    "anisotropic PSR": (np.array([[0, 0, 1.0], [-1, 0, 0], [0, 1, 0]]), (0.5, 2.5, 0.9)),
    "oblique LPI": (TURN * [-1, -1, -1], (0.7, 1.1, 2.0)),
    "ASL": (np.array([[0, 0, -1.0], [1, 0, 0], [0, 1, 0]]), (0.6, 0.6, 0.6)),
}


def _grid(name: str) -> Grid:
    directions, spacing = DIRECTIONS[name]
    affine = np.eye(4)
    affine[:3, :3] = directions * spacing
    affine[:3, 3] = [10, -20, 30]
    return Grid(name, SHAPE, affine)


def _with_marker(grid: Grid) -> tuple[np.ndarray, np.ndarray]:
    """A scan with a marker to the right and front in its middle slice, and the marker's voxel."""
    axis = slice_axis(grid.affine)
    voxel = (np.array(SHAPE) - 1) / 2
    for world, sign in ((0, 0.28), (1, 0.36)):
        stored, direction = next(
            (n, sign) for n, (w, sign) in enumerate(nibabel.io_orientation(grid.affine)) if w == world
        )
        voxel[stored] += sign * direction * SHAPE[stored]
    voxel[axis] = spread_slices(SHAPE[axis], 3)[1]
    marker = np.rint(voxel).astype(int)
    image = np.full(SHAPE, 100, np.float32)
    image[tuple(marker)] = 1000
    return image, marker


def _write(folder: Path, *grids: Grid, name: str | None = None) -> Path:
    cases = [
        case_data(name or grid.name, f"{n:064x}", _with_marker(grid)[0], grid, slices=3, modality=None)
        for n, grid in enumerate(grids)
    ]
    path = folder / "medseg_annotation.html"
    write_annotation_page(path, cases, title="Ticks", created="2026-01-02T03:04:05+00:00", cell=CELL)
    return path


@pytest.fixture(scope="module")
def page_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _write(tmp_path_factory.mktemp("page"), *map(_grid, DIRECTIONS))


class Opened(OpenedPage):
    def pixels(self) -> np.ndarray:
        shot = self.page.locator("#canvas").screenshot()
        return np.asarray(Image.open(io.BytesIO(shot)).convert("RGB")).astype(int)

    def middle(self, *place: int) -> tuple[float, float]:
        box = self.do(f"medseg.boxOf({list(place)})")
        return box["x"], box["y"]

    def click(self, *place: int) -> None:
        self.page.mouse.click(*self.middle(*place))
        self.do("0")

    def slices(self, case: int = 0) -> list[dict]:
        found = self.do("medseg.annotations()")["annotations"]
        return found[case]["slices"] if found else []

    def ticked(self) -> list[list[int]]:
        """Of the slice that is shown."""
        found = {part["index"]: part["ticked"] for part in self.slices()}
        return found.get(13 if self.do("medseg.state.sliceNumber") == 1 else 4, [])


@pytest.fixture
def opened(browser: Any, page_file: Path) -> Iterator[Opened]:
    page = Opened(browser, page_file)
    yield page
    page.close()


@needs_browser
def test_a_cell_ticked_where_the_marker_is_seen_holds_its_voxel(opened, tmp_path):
    markers = {}
    for number, name in enumerate(DIRECTIONS):
        image, marker = _with_marker(_grid(name))
        markers[name] = image, marker[slice_axis(_grid(name).affine)]
        opened.do(f"medseg.goTo({number}, 1)")
        opened.key("g")
        grey = opened.pixels()[..., 0]
        opened.key("g")
        height, width = grey.shape
        grey[:, width // 2 - 15 : width // 2 + 15] = 0  # the letters A and P, R and L
        grey[height // 2 - 15 : height // 2 + 15] = 0
        parts, _ = ndimage.label(grey > 100)
        y, x = ndimage.center_of_mass(parts == np.bincount(parts.ravel())[1:].argmax() + 1)
        assert x < width / 2 - 20, f"{name}: the right must be on the left"
        assert y < height / 2 - 20, f"{name}: the front must be at the top"
        outer = opened.page.locator("#canvas").bounding_box()
        opened.page.mouse.click(outer["x"] + x, outer["y"] + y)
        opened.key("Enter")
    opened.page.fill("#annotator", "Ada")
    opened.key("Escape")
    with opened.page.expect_download() as waiting:
        opened.key("s")
    path = tmp_path / waiting.value.suggested_filename
    waiting.value.save_as(path)
    annotations, failed = read_annotations(path)
    assert not failed and [annotation.case for annotation in annotations] == list(DIRECTIONS)
    for annotation in annotations:
        name, (image, index) = annotation.case, markers[annotation.case]
        grid = _grid(name)
        assert (annotation.grid.affine == grid.affine).all() and annotation.grid.shape == SHAPE
        (part,) = annotation.slices
        assert part.index == index and part.seen
        (place,) = part.ticked
        inside = cut_cell(np.moveaxis(image, slice_axis(grid.affine), 0)[part.index], place, CELL)
        assert inside.max() == 1000, name


@needs_browser
def test_every_cell_is_where_it_says(opened):
    for name in ("LAS", "anisotropic PSR"):
        opened.do(f"medseg.goTo({list(DIRECTIONS).index(name)}, 0)")
        rows, columns = cells_along(SHAPE, slice_axis(_grid(name).affine), CELL)
        boxes = {place: opened.page.evaluate(f"medseg.boxOf({list(place)})") for place in np.ndindex(rows, columns)}
        for box in boxes.values():
            opened.page.mouse.click(box["x"], box["y"])
        (part,) = opened.slices(-1)
        assert part["ticked"] == [list(place) for place in boxes]


@needs_browser
def test_the_page_is_whole_and_asks_nobody(opened):
    assert "Research use only" in opened.text("#research")
    assert "0 of 18 slices judged" in opened.text("#progress")
    assert "RAS: slice 1 of 3" in opened.text("#place")
    legend = opened.page.locator("#legend th").all_inner_texts()
    assert len(legend) == 7 and legend[0] == "Click, drag"
    assert set(legend[1:]) < {*opened.page.locator("#keys th").all_text_contents(), "U"}
    policy = opened.page.locator("meta[http-equiv]").get_attribute("content")
    assert "default-src 'none'" in policy and "unsafe" not in policy and "connect-src 'none'" in policy


@needs_browser
def test_a_click_ticks_and_another_takes_it_away(opened):
    before = opened.pixels()
    opened.click(1, 2)
    assert opened.ticked() == [[1, 2]]
    changed = np.argwhere((opened.pixels() != before).any(-1))
    box = opened.do("medseg.boxOf([1, 2])")
    assert (np.ptp(changed, axis=0) <= [box["height"] + 3, box["width"] + 3]).all()
    opened.click(1, 2)
    assert opened.ticked() == []
    assert (opened.pixels() == before).all()


@needs_browser
def test_a_fast_drag_skips_no_cell_and_is_undone_as_one(opened):
    opened.click(1, 1)
    opened.page.mouse.move(*opened.middle(0, 0))
    opened.page.mouse.down()
    opened.page.mouse.move(*opened.middle(0, 4))
    opened.page.mouse.move(*opened.middle(3, 4))
    opened.page.mouse.up()
    drawn = [[0, 0], [0, 1], [0, 2], [0, 3], [0, 4], [1, 1], [1, 4], [2, 4], [3, 4]]
    assert opened.ticked() == drawn
    opened.key("Control+z")
    assert opened.ticked() == [[1, 1]]
    opened.key("Shift+U")
    assert opened.ticked() == drawn
    opened.page.mouse.move(*opened.middle(0, 1))  # from a ticked cell, a drag takes away
    opened.page.mouse.down()
    opened.page.mouse.move(*opened.middle(0, 4))
    opened.page.mouse.up()
    assert opened.ticked() == [[0, 0], [1, 1], [1, 4], [2, 4], [3, 4]]


@needs_browser
def test_the_keyboard_alone_is_enough(opened):
    start = opened.do("medseg.state.cursor")
    opened.key("ArrowLeft", "ArrowUp", " ")  # RAS: left on the screen is right, the end of rows
    assert opened.ticked() == [[start[0] + 1, start[1] + 1]]
    opened.key(*["ArrowLeft"] * 9, "ArrowUp", " ")
    assert [3, start[1] + 2] in opened.ticked()  # it stops at the border
    opened.key("Enter")
    assert opened.do("medseg.state.sliceNumber") == 1
    opened.key("Enter")  # without a tick it must be said by X
    assert opened.do("medseg.state.sliceNumber") == 1 and "press X" in opened.text("#status")
    opened.key("x", "u")
    assert opened.do("[medseg.state.sliceNumber, medseg.state.sheet]") == [1, "open"]
    opened.key("x")
    assert opened.do("medseg.state.sliceNumber") == 2
    opened.key(" ", "PageUp")
    assert opened.text("#status") == "0 cells ticked. No vessel here."
    opened.key("n")
    assert opened.do("medseg.state.case") == "LAS"
    opened.key("p", "w", "+", "g", "?")
    assert opened.page.locator("#help").is_visible()
    opened.key("Escape")
    assert opened.do("[medseg.state.preset, medseg.state.level, medseg.state.lines]") == [1, 10, False]
    assert [(part["seen"], len(part["ticked"])) for part in opened.slices()] == [(True, 2), (True, 0), (False, 1)]
    assert opened.text("#cases li:first-child .signs") == "✓ ✕ …"


@needs_browser
def test_a_finished_slice_without_ticks_is_open_again(opened: Opened) -> None:
    opened.click(1, 1)
    opened.page.keyboard.press("Enter")
    opened.page.keyboard.press("PageUp")
    assert [part["seen"] for part in opened.slices()] == [True]
    opened.click(1, 1)
    assert not any(part["seen"] for part in opened.slices())  # "all ticked" was not meant as "no vessel here"


def test_saying_no_vessel_takes_ticks_away_and_a_tick_takes_it_back(opened):
    opened.click(1, 1)
    opened.page.locator("#none").click()
    opened.key(",")
    assert opened.slices() == [{"index": 4, "ticked": [], "seen": True}]
    assert opened.page.locator("#none").get_attribute("aria-pressed") == "true"
    opened.click(2, 2)
    assert opened.slices() == [{"index": 4, "ticked": [[2, 2]], "seen": False}]
    opened.key("u", "u")
    assert opened.slices() == [{"index": 4, "ticked": [[1, 1]], "seen": False}]


@needs_browser
def test_the_work_survives_a_closed_tab(browser, page_file):
    page = Opened(browser, page_file)
    page.page.fill("#annotator", "Ada")
    page.click(1, 1)
    page.key("Enter", "x", "n")
    page.click(2, 0)
    before = page.do("medseg.annotations()")
    page.page.close()
    page.open()
    assert "2 cases" in page.text("#notices")
    after = page.do("medseg.annotations()")
    for annotation in (*before["annotations"], *after["annotations"]):
        annotation.pop("seconds")
    assert after == before and after["annotations"][0]["annotator"] == "Ada"
    page.close()


@needs_browser
def test_pauses_do_not_count_and_work_does(browser, page_file):
    page = Opened(browser, page_file, CLOCK)

    def press_after(seconds: float) -> None:
        page.page.evaluate(f"pass({seconds})")
        page.key("g")

    page.key("g")  # the first sign of life
    for seconds in (3, 19, 21, 600, 4):
        press_after(seconds)
    assert page.do("medseg.state.seconds") == pytest.approx(26)
    page.key("n")
    press_after(5)
    page.click(1, 1)
    assert page.do("medseg.state.seconds") == pytest.approx(5)
    assert page.do("medseg.annotations().annotations[0].seconds") == 5
    page.close()


@needs_browser
def test_the_download_follows_the_schema_and_needs_a_name(opened):
    opened.key("s")
    assert "Nothing is ticked" in opened.text("#status")
    opened.click(3, 4)
    opened.key("s")
    assert "enter your name" in opened.text("#status")
    opened.page.keyboard.type("Ada s x u")  # only letters here
    opened.key("Escape")
    with opened.page.expect_download() as waiting:
        opened.page.get_by_role("button", name="Download").click()
    assert waiting.value.suggested_filename == "medseg_annotation.json"
    content = json.loads(Path(waiting.value.path()).read_text())
    assert "not finished" in opened.text("#status")
    assert content["schema"] == "medseg-annotation/1" and content["software"].startswith("medseg ")
    (entry,) = content["annotations"]
    time, seconds = entry.pop("time"), entry.pop("seconds")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT[\d:.]+Z", time) and seconds >= 0
    assert entry == {
        "case": "RAS",
        "source_sha256": f"{0:064x}",
        "shape": list(SHAPE),
        "affine": _grid("RAS").affine.tolist(),
        "plane": "axial",
        "cell": CELL,
        "slices": [{"index": 4, "ticked": [[3, 4]], "seen": False}],
        "annotator": "Ada s x u",
    }


@needs_browser
def test_windows_change_the_picture(browser, tmp_path):
    image = np.random.default_rng(1).gamma(2, 100, SHAPE).astype(np.float32)
    data = case_data("a", "0", image, _grid("LAS"), slices=1, modality=None)
    path = tmp_path / "page.html"
    write_annotation_page(path, [data], title="a", created="now", cell=CELL)
    page = Opened(browser, path)
    page.key("g")
    shown = [page.pixels().mean()]
    page.page.get_by_role("button", name="Whole range").click()
    page.do("0")
    shown.append(page.pixels().mean())
    page.key("+", "+", "+")
    shown.append(page.pixels().mean())
    assert shown[1] < shown[0] - 2 and shown[1] < shown[2] - 2
    page.close()


@needs_browser
def test_without_storage_a_message_says_so(browser, page_file):
    page = Opened(browser, page_file, NO_STORAGE)
    assert "does not keep your work" in page.text("#notices") and "NOT kept" in page.text("#saved")
    page.click(1, 1)
    assert page.ticked() == [[1, 1]]
    page.close()


@needs_browser
def test_names_are_text(browser, tmp_path):
    page = Opened(browser, _write(tmp_path, _grid("LAS"), name=EVIL))
    assert EVIL in page.text("#place") and EVIL in page.text("#cases")
    assert page.page.locator("body img").count() == 0 and page.page.title() == "Ticks"
    page.close()


@needs_browser
@pytest.mark.parametrize("width", [390, 800, 1440])
def test_every_width_keeps_slice_and_buttons_in_sight(browser, page_file, width):
    page = Opened(browser, page_file, viewport={"width": width, "height": 780})
    assert page.do("document.documentElement.scrollWidth") <= width
    for selector in ("#done", "#none", "#undo", "#research", "#canvas"):
        box = page.page.locator(selector).bounding_box()
        assert box["x"] >= 0 and box["x"] + box["width"] <= width
        assert box["y"] >= 0 and box["y"] + box["height"] <= 780
    assert min(page.do("medseg.boxOf([0, 0])").values()) > 20  # large enough for a finger
    page.close()


@pytest.mark.parametrize("name", DIRECTIONS)
def test_the_slices_lie_in_the_page_as_they_are_stored(name):
    grid = _grid(name)
    image = np.random.default_rng(1).integers(0, 3000, SHAPE).astype(np.float32)
    data = case_data("a", "0", image, grid, slices=3, modality=None)
    stack = nibabel.Nifti1Image.from_bytes(gzip.decompress(b64decode(data["stack"])))
    axis = slice_axis(grid.affine)
    expected = np.stack([image.take(index, axis) for index in data["indices"]], axis=-1)
    assert (np.asarray(stack.dataobj) == expected).all()
    height = [(grid.affine @ [*np.eye(3)[axis] * index, 1])[2] for index in data["indices"]]
    assert height == sorted(height), "from the feet to the head"


def test_values_that_are_not_whole_are_shown_as_they_are():
    image = np.random.default_rng(1).normal(size=SHAPE).astype(np.float32)
    data = case_data("a", "0", image, _grid("RAS"), slices=1, modality=None)
    stack = nibabel.Nifti1Image.from_bytes(gzip.decompress(b64decode(data["stack"])))
    assert np.asarray(stack.dataobj)[..., 0] == pytest.approx(image[:, :, 13], abs=1e-3)


def test_a_page_that_is_too_large_is_one_line(tmp_path):
    data = case_data("a", "0", _with_marker(_grid("RAS"))[0], _grid("RAS"), slices=3, modality=None)
    with pytest.raises(MedsegError, match=r"at most 0\.01 MB, got 0 MB for 1 cases; give fewer"):
        write_annotation_page(tmp_path / "a.html", [data], title="a", created="now", cell=8, max_mb=0.01)
    assert not list(tmp_path.iterdir())


def test_no_script_can_end_its_element():
    folder = Path(__file__).parents[3] / "medseg/review/annotator"
    for path in folder.glob("*.js"):
        assert not re.search(r"</script|<!--", path.read_text(encoding="utf-8"), re.IGNORECASE)
