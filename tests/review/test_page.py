"""The review page, driven in a browser as a radiologist would: from a file, without a network.

A *marker* is a bright cube whose place in mm is known. What is drawn where it is seen must lie there in the file.
"""

import base64
import gzip
import io
import json
import re
import shutil
import struct
from collections.abc import Iterator
from pathlib import Path

import nibabel
import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from medseg.review.page import PageText, write_page

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed (extra `dev`)")
BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
VIEWER = Path(__file__).parents[2] / "medseg/review/viewer/niivue.umd.js"
pytestmark = [
    pytest.mark.skipif(BROWSER is None, reason="no chromium on this machine: install it to test the review page"),
    pytest.mark.skipif(not VIEWER.exists(), reason="NiiVue was not fetched when medseg was installed"),
]

FLAGS = [
    "--use-gl=angle",
    "--use-angle=swiftshader",
    "--enable-unsafe-swiftshader",
    "--ignore-gpu-blocklist",
    "--no-sandbox",
]
NO_WEBGL = """const get = HTMLCanvasElement.prototype.getContext;
HTMLCanvasElement.prototype.getContext = function (kind, ...more) {
  return kind.startsWith("webgl") ? null : get.call(this, kind, ...more);
};"""
NO_STORAGE = "Object.defineProperty(window, 'indexedDB', {get() { throw new Error('denied'); }});"
NO_UNPACKING = "delete window.DecompressionStream;"
EVIL = "<img src=x onerror=\"document.title='taken'\">"
SHAPE = (30, 34, 26)
TURN = np.array([[0.94, -0.34, 0], [0.34, 0.94, 0], [0, 0, 1]]) @ [[1, 0, 0], [0, 0.97, -0.26], [0, 0.26, 0.97]]
MIDDLE = np.array([10.0, -20, 30])


def _affine(directions: np.ndarray, spacing: tuple[float, float, float]) -> np.ndarray:
    """A grid whose middle lies at 10, -20, 30 mm."""
    affine = np.eye(4)
    affine[:3, :3] = directions * spacing
    affine[:3, 3] = MIDDLE - affine[:3, :3] @ (np.array(SHAPE) - 1) / 2
    return affine


GRIDS = {
    "oblique": _affine(TURN, (0.8, 0.8, 1.2)),
    "LAS": _affine(np.diag([-1.0, 1, 1]), (1, 1, 1)),
    "anisotropic PSR": _affine(np.array([[0, 0, 1.0], [-1, 0, 0], [0, 1, 0]]), (0.5, 0.6, 2.5)),
}
RIGHT_FRONT_TOP = np.array([4.2, 3.6, 3.1])
"""From the middle of a grid to its marker, in mm."""


def _packed(values: np.ndarray, affine: np.ndarray, *, share: bool = False) -> bytes:
    image = nibabel.Nifti1Image(values, affine)
    image.header.set_xyzt_units("mm")
    content = bytearray(image.to_bytes())
    if share:
        struct.pack_into("<ff", content, 112, 1 / 255, 0)
    return gzip.compress(bytes(content), mtime=0)


def _case(name: str, affine: np.ndarray, folder: Path, **more: object) -> tuple[dict, list[tuple[str, Path]]]:
    """A case with a marker in the right, anterior, superior eighth, and a mask in the opposite one."""
    image = np.zeros(SHAPE, np.int16)
    marker = np.rint(np.linalg.solve(affine[:3, :3], MIDDLE + RIGHT_FRONT_TOP - affine[:3, 3])).astype(int)
    image[tuple(slice(n - 1, n + 2) for n in marker)] = 1000
    mask = np.zeros(SHAPE, np.uint8)
    other = np.array(SHAPE) - 1 - marker
    mask[tuple(slice(n - 2, n + 3) for n in other)] = 1
    mask[tuple(other)] = 0  # a hole to fill
    mask[2:4, 2:4, 2:4] = 2
    number = len(list(folder.glob("*-mask.nii.gz")))
    blobs = []
    contents = {
        "image": _packed(image, affine),
        "mask": _packed(mask, affine),
        "uncertainty": _packed(mask * np.uint8(120), affine, share=True),
    }
    for kind, content in contents.items():
        path = folder / f"case{number}-{kind}.nii.gz"
        path.write_bytes(content)
        blobs.append((path.name.removesuffix(".nii.gz"), path))
    tiny = io.BytesIO()
    Image.new("RGB", (8, 8), "white").save(tiny, format="PNG")
    picture = "data:image/png;base64," + base64.b64encode(tiny.getvalue()).decode()
    data = {
        "case": name,
        "label": name,
        "source_sha256": f"{number:064x}",
        "run_hash": "abc",
        "method": "stego",
        "named_by": "rules",
        "rank": number + 1,
        "reasons": [f"Reason of {name}."],
        "facts": [["Volume of vessel", "0.1 ml"]],
        "unit": "mm",
        "kind": "volume",
        "image": f"case{number}-image",
        "mask": f"case{number}-mask",
        "probability": None,
        "uncertainty": f"case{number}-uncertainty",
        "region": None,
        "slices": {"axial": picture, "coronal": picture, "sagittal": picture},
        "window": [0, 1000],
        "presets": [{"name": "Narrow", "low": 0, "high": 500}, {"name": "Wide", "low": 0, "high": 2000}],
    }
    return data | more, blobs


@pytest.fixture(scope="module")
def page_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("page")
    made = [_case(name, affine, folder) for name, affine in GRIDS.items()]
    made += [_case(EVIL, GRIDS["LAS"], folder)]
    made += [_case("cine", GRIDS["LAS"], folder, kind="frames", unit="px", uncertainty=None)]
    head = {
        "schema": "medseg-review/1",
        "title": "Review of phantoms",
        "created": "2026-01-02T03:04:05+00:00",
        "software": "medseg 1.2.3",
        "served": False,
        "part": "1 of 1",
        "parts": [],
        "classes": [
            {"value": 1, "name": "vessel", "colour": "#e6194b"},
            {"value": 2, "name": EVIL, "colour": "#3cb44b"},
        ],
    }
    blobs = [blob for _, some in made for blob in some]
    write_page(folder / "review.html", PageText(served=False), head, (data for data, _ in made), blobs)
    return folder / "review.html"


@pytest.fixture(scope="module")
def browser() -> Iterator[playwright.Browser]:
    with playwright.sync_playwright() as engine:
        started = engine.chromium.launch(executable_path=BROWSER, args=FLAGS)
        yield started
        started.close()


class Opened:
    """The page in a browser of its own storage; nothing may leave it."""

    def __init__(self, browser: playwright.Browser, file: Path, *scripts: str, **options: object) -> None:
        self.context = browser.new_context(**{"viewport": {"width": 1100, "height": 700}, **options})
        self.context.set_default_timeout(30_000)
        self.file = file
        self.asked: list[str] = []
        self.errors: list[str] = []
        self.context.route("**", self._no_network)
        for script in scripts:
            self.context.add_init_script(script)
        self.page = self.context.new_page()
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("console", lambda said: self.errors.append(said.text) if said.type == "error" else None)
        self.page.goto(file.as_uri())
        self.do("medseg.ready")

    def _no_network(self, route: playwright.Route) -> None:
        if route.request.url == self.file.as_uri():
            route.continue_()
        else:
            self.asked.append(route.request.url)
            route.abort()

    def do(self, script: str) -> object:
        """Run a script, then wait until the page is drawn."""
        answer = self.page.evaluate(script)
        self.page.evaluate("() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
        return answer

    def wait(self, script: str) -> None:
        """Wait until a script gives true; playwright's own way needs `eval`, which the page forbids."""
        for _ in range(300):
            if self.do(script):
                return
            self.page.wait_for_timeout(50)
        raise AssertionError(f"not true after some time: {script}")

    def key(self, *keys: str) -> None:
        for key in keys:
            self.page.keyboard.press(key)
        self.do("0")

    def text(self, selector: str) -> str:
        return self.page.locator(selector).inner_text()

    def pixels(self, view: str) -> np.ndarray:
        """What the canvas of a view shows."""
        shot = self.page.locator(f"#pane-{view} canvas").screenshot()
        return np.asarray(Image.open(io.BytesIO(shot)).convert("RGB")).astype(int)

    def marker(self, view: str) -> tuple[float, float]:
        """Middle of the marker on the canvas of a view."""
        bright = (self.pixels(view) > 245).all(-1)  # letters are darker
        parts, _ = ndimage.label(bright)
        largest = np.bincount(parts.ravel())[1:].argmax() + 1
        y, x = ndimage.center_of_mass(parts == largest)
        return float(x) + 0.5, float(y) + 0.5

    def click(self, view: str, x: float, y: float) -> None:
        self.page.locator(f"#pane-{view} canvas").click(position={"x": x, "y": y})
        self.do("0")

    def mask(self, case: str) -> nibabel.Nifti1Image:
        """The corrected mask as the page gives it."""
        script = f"medseg.correctedMask({json.dumps(case)}).then((bytes) => Array.from(bytes))"
        return nibabel.Nifti1Image.from_bytes(gzip.decompress(bytes(self.do(script))))

    def close(self) -> None:
        self.context.close()
        assert self.asked == []
        assert self.errors == []


@pytest.fixture
def opened(browser: playwright.Browser, page_file: Path) -> Iterator[Opened]:
    """Without WebGL, because drawing in 3-D without a graphics card takes most of the time."""
    page = Opened(browser, page_file, NO_WEBGL)
    yield page
    page.close()


def _orange(pixels: np.ndarray) -> int:
    return int(((pixels[..., 0] - pixels[..., 2]) > 60).sum())


def _original(page_file: Path, number: int) -> nibabel.Nifti1Image:
    return nibabel.load(page_file.parent / f"case{number}-mask.nii.gz")


def test_the_page_shows_mask_and_3d_view_and_asks_the_network_for_nothing(browser, page_file):
    page = Opened(browser, page_file)
    assert page.text("h1") == "Review of phantoms"
    assert "Research use only. Not for diagnosis." in page.text("body")
    assert page.text("#case-name") == "oblique"
    assert "0 of 5 reviewed" in page.text("#progress")
    shown = _orange(page.pixels("axial"))
    page.wait("document.getElementById('stage-note').textContent === ''")
    page.page.wait_for_timeout(1000)
    assert _orange(page.pixels("3d")) > 100
    page.key("m")
    assert shown > 200
    assert _orange(page.pixels("axial")) == 0
    policy = page.page.locator("meta[http-equiv]").get_attribute("content")
    assert "default-src 'none'" in policy and "unsafe" not in policy and "connect-src 'none'" in policy
    page.close()


@pytest.mark.parametrize(("number", "name"), list(enumerate(GRIDS)))
def test_what_is_drawn_where_it_is_seen_lies_there_in_the_file(opened, page_file, number, name):
    place = MIDDLE + RIGHT_FRONT_TOP
    for view, letters in (("axial", "RA"), ("coronal", "RS"), ("sagittal", "AS")):
        opened.do(f"medseg.goTo({number})")
        opened.do(f"medseg.goToMm({place.tolist()})")
        opened.do("medseg.setView({cross: false})")
        opened.do("medseg.setTool('brush')")
        x, y = opened.marker(view)
        height, width = opened.pixels(view).shape[:2]
        assert x < width / 2, f"{letters[0]} must be on the left"
        assert y < height / 2, f"{letters[1]} must be at the top"
        before = opened.mask(name)
        opened.click(view, x, y)
        after = opened.mask(name)
        changed = np.argwhere(np.asarray(after.dataobj) != np.asarray(before.dataobj))
        assert len(changed)
        middle = nibabel.affines.apply_affine(after.affine, changed.mean(0))
        marker = np.rint(np.linalg.solve(GRIDS[name][:3, :3], place - GRIDS[name][:3, 3]))
        assert np.abs(changed.mean(0) - marker).max() <= 0.51, view
        assert np.linalg.norm(middle - place) < np.linalg.norm(nibabel.affines.voxel_sizes(after.affine))
        opened.do("medseg.undo()")
        assert (np.asarray(opened.mask(name).dataobj) == np.asarray(before.dataobj)).all()


def test_the_corrected_mask_keeps_the_header_bit_for_bit(opened, page_file):
    original = gzip.decompress((page_file.parent / "case0-mask.nii.gz").read_bytes())
    assert bytes(_original(page_file, 0).to_bytes()) == original
    opened.do("medseg.drawAt([10, -20, 30], 2, 1.5)")
    edited = bytes(opened.mask("oblique").to_bytes())
    assert edited[:352] == original[:352] and edited != original
    values = np.asarray(opened.mask("oblique").dataobj)
    centres = nibabel.affines.apply_affine(GRIDS["oblique"], np.argwhere(np.ones(SHAPE)))
    ball = (np.linalg.norm(centres - [10, -20, 30], axis=1) <= 1.5).reshape(SHAPE)
    assert (values == np.where(ball, 2, np.asarray(_original(page_file, 0).dataobj))).all()


def test_verdict_stroke_and_comment_survive_a_closed_tab(browser, page_file):
    page = Opened(browser, page_file, NO_WEBGL)
    page.do("medseg.drawAt([10, -20, 30], 1, 2)")
    page.do("medseg.accept()")
    assert page.do("medseg.decision('oblique').verdict") == "correct"
    page.key("n")
    page.page.fill("#comment", "clear")
    page.do("medseg.accept()")
    drawn = np.asarray(page.mask("oblique").dataobj)
    page.page.close()
    page.page = page.context.new_page()
    page.page.goto(page.file.as_uri())
    page.do("medseg.ready")
    assert "restored" in page.text("#notices")
    assert "2 of 5 reviewed" in page.text("#progress")
    assert (np.asarray(page.mask("oblique").dataobj) == drawn).all()
    assert page.do("medseg.decision('LAS')")["comment"] == "clear"
    assert page.do("medseg.decision('LAS')")["mask"] is None
    page.close()


def test_the_next_case_and_another_window_change_the_picture(opened):
    opened.do(f"medseg.goToMm({(MIDDLE + RIGHT_FRONT_TOP).tolist()})")
    first = opened.pixels("axial")
    opened.do("medseg.setWindow(0, 4000)")
    assert opened.pixels("axial").max() <= first.max()
    assert (opened.pixels("axial") != first).any()
    opened.page.get_by_role("button", name="Narrow").click()
    assert opened.do("[medseg.state.view.low, medseg.state.view.high]") == [0, 500]
    before = opened.do("medseg.state.view.high")
    canvas = opened.page.locator("#pane-axial canvas").bounding_box()
    opened.page.mouse.move(canvas["x"] + 50, canvas["y"] + 50)
    opened.page.mouse.down(button="right")
    opened.page.mouse.move(canvas["x"] + 120, canvas["y"] + 50)
    opened.page.mouse.up(button="right")
    assert opened.do("medseg.state.view.high") > before
    opened.page.get_by_role("button", name="Next case").click()
    opened.wait("medseg.state.shown && medseg.state.case === 'LAS'")
    assert opened.text("#case-name") == "LAS"


def test_wheel_slab_outline_and_layers(opened):
    opened.page.locator("#pane-axial canvas").hover()
    before = opened.do("medseg.state.cursor")
    opened.page.mouse.wheel(0, -120)
    opened.do("0")
    assert opened.do("medseg.state.cursor")[2] - before[2] == 3
    opened.page.mouse.wheel(0, 120)
    filled = _orange(opened.pixels("axial"))
    opened.key("o")
    assert 0 < _orange(opened.pixels("axial")) < filled / 2
    opened.do("medseg.setView({mask: false, layer: 'uncertainty'})")
    assert (np.ptp(opened.pixels("axial"), axis=-1) > 40).sum() > filled / 2
    opened.do("medseg.setView({layer: '', cross: false})")
    assert not (opened.pixels("axial") > 245).all(-1).any()
    opened.do("medseg.setView({slab: 40})")  # the marker lies in other slices, which the slab holds
    assert (opened.pixels("axial") > 245).all(-1).sum() > 20
    assert "MIP" not in opened.text("#status")


def test_fill_remove_name_and_measure(opened, page_file):
    opened.do("medseg.goTo('LAS')")
    mask = np.asarray(_original(page_file, 1).dataobj)
    hole = np.argwhere(ndimage.binary_fill_holes(mask == 1) & (mask == 0))[0]
    mm = nibabel.affines.apply_affine(GRIDS["LAS"], hole).tolist()
    opened.do(f"medseg.goToMm({mm})")
    opened.key("1", "f", "Enter")
    assert (np.asarray(opened.mask("LAS").dataobj) != mask).sum() == 1
    opened.key("k", "Enter")
    assert set(np.unique(np.asarray(opened.mask("LAS").dataobj))) == {0, 2}
    opened.key("u", "u")
    assert (np.asarray(opened.mask("LAS").dataobj) == mask).all()
    opened.key("g", "Enter")
    assert opened.do("medseg.decision('LAS').clicks") == [{"xyz_mm": pytest.approx(mm), "class": "vessel"}]
    opened.key("d", "Enter", "Shift+ArrowRight", "Shift+ArrowRight", "Shift+ArrowRight", "ArrowUp", "ArrowUp")
    opened.key("ArrowUp", "ArrowUp", "Enter")
    assert "Distance 5.0 mm" in opened.text("#marks-list")  # 3 mm across and 4 mm up


def test_the_keyboard_alone_is_enough(opened):
    opened.page.fill("#reviewer", "Dr Who")
    opened.key("Escape", "1", "b", "ArrowUp", "Shift+ArrowLeft", "Enter", "c", "n")
    opened.wait("medseg.state.shown && medseg.state.case === 'LAS'")
    opened.key("i")
    opened.page.keyboard.type("a, b and n are only letters here")
    opened.key("Escape", "r", "?")
    assert opened.page.locator("#help").is_visible()
    opened.key("Escape")
    with opened.page.expect_download() as waiting:
        opened.key("s")
    assert waiting.value.suggested_filename == "medseg_decisions.json"
    decisions = json.loads(Path(waiting.value.path()).read_text())
    assert decisions["schema"] == "medseg-decisions/1"
    assert decisions["software"] == "medseg 1.2.3"
    assert decisions["page_created"] == "2026-01-02T03:04:05+00:00"
    corrected, rejected = decisions["decisions"]
    assert (
        set(corrected)
        == set(rejected)
        == {
            *(
                "case",
                "source_sha256",
                "run_hash",
                "verdict",
                "reviewer",
                "time",
                "seconds",
                "comment",
                "clicks",
                "mask",
            )
        }
    )
    assert (corrected["case"], corrected["verdict"], corrected["mask"]) == (
        *("oblique", "correct", "oblique_corrected.nii.gz"),
    )
    assert (rejected["verdict"], rejected["mask"], rejected["reviewer"]) == ("reject", None, "Dr Who")
    assert rejected["comment"] == "a, b and n are only letters here"
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT[\d:.]+Z", rejected["time"])
    focused = opened.page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
    assert focused == "solid"


def test_the_downloads_are_the_decisions_and_each_corrected_mask(opened, page_file):
    opened.page.fill("#reviewer", "Dr Who")
    opened.do("medseg.drawAt([10, -20, 30], 1, 2)")
    opened.do("medseg.correct()")
    files = []
    opened.page.on("download", lambda file: files.append(file))
    opened.page.get_by_role("button", name="Decisions and all corrected masks").click()
    opened.page.wait_for_timeout(1000)
    assert [file.suggested_filename for file in files] == ["medseg_decisions.json", "oblique_corrected.nii.gz"]
    saved = nibabel.Nifti1Image.from_bytes(gzip.decompress(Path(files[1].path()).read_bytes()))
    assert (saved.affine == _original(page_file, 0).affine).all()
    assert (np.asarray(saved.dataobj) != np.asarray(_original(page_file, 0).dataobj)).any()


def test_verdicts_fit_the_mask_and_can_be_undone(opened):
    opened.do("medseg.correct()")
    assert opened.do("medseg.decision(0).verdict") is None  # nothing is corrected yet
    opened.do("medseg.accept()")
    opened.do("medseg.drawAt([10, -20, 30], 1, 2)")
    assert opened.do("medseg.decision(0).verdict") == "correct"
    opened.do("medseg.undo()")
    assert opened.do("medseg.decision(0).verdict") is None
    opened.do("medseg.reject()")
    assert "rejected" in opened.text("#cases li:first-child")
    opened.do("medseg.undo()")
    assert opened.do("medseg.decision(0).verdict") is None


def test_no_verdict_falls_on_a_case_that_is_not_on_the_screen(opened):
    said = opened.do("(medseg.goTo(1), medseg.accept(), [medseg.decision(0).verdict, medseg.decision(1).verdict])")
    assert said == [None, None] and "not on the screen yet" in opened.text("#status")
    assert opened.text("#case-name") == opened.do(
        "JSON.parse(document.getElementById('medseg-data').textContent).cases[1].label"
    )
    opened.wait("!document.querySelector('[data-verdict=accept]').disabled")
    assert opened.do("(medseg.accept(), medseg.decision(1).verdict)") == "accept"


def test_without_webgl_a_message_says_what_still_works(opened):
    assert "no WebGL2" in opened.text("#pane-3d")
    assert _orange(opened.pixels("axial")) > 200
    opened.do("medseg.accept()")
    assert opened.do("medseg.decision(0).verdict") == "accept"


def test_without_storage_a_message_says_so(browser, page_file):
    page = Opened(browser, page_file, NO_WEBGL, NO_STORAGE)
    assert "does not keep your work" in page.text("#notices")
    page.do("medseg.reject()")
    assert page.do("medseg.decision(0).verdict") == "reject"
    page.close()


def test_where_scans_cannot_be_unpacked_pictures_and_verdicts_remain(browser, page_file):
    page = Opened(browser, page_file, NO_WEBGL, NO_UNPACKING)
    assert "too old" in page.text("#pictures")
    assert page.page.locator("#pictures img").count() == 3
    page.key("a", "n")
    page.wait("!document.querySelector('[data-verdict=reject]').disabled")
    page.key("r")
    assert [page.do(f"medseg.decision({n}).verdict") for n in (0, 1)] == ["accept", "reject"]
    page.close()


def test_names_are_text(opened):
    opened.do(f"medseg.goTo({json.dumps(EVIL)})")
    assert opened.text("#case-name") == EVIL
    assert EVIL in opened.text("#cases")
    opened.key("g", "q", "1", "Enter")
    assert EVIL in opened.text("#marks-list")
    assert opened.page.locator("body img").count() == 0
    assert opened.page.title() == "Review of phantoms"


def test_frames_are_one_view_in_pixels(opened):
    opened.do("medseg.goTo('cine')")
    assert opened.page.locator("#pane-axial").is_visible()
    assert not opened.page.locator("#pane-coronal").is_visible()
    assert "column" in opened.text("#status") and "mm" not in opened.text("#status")
    opened.key("1", "d", "Enter", "Shift+ArrowRight", "Shift+ArrowRight", "Enter")
    assert "Distance 2 px" in opened.text("#marks-list")
    before = opened.do("medseg.state.cursor[2]")
    opened.key(" ")
    opened.wait(f"medseg.state.cursor[2] !== {before}")
    opened.key(" ")


@pytest.mark.parametrize("width", [390, 800])
def test_small_windows_have_no_sideways_scrolling_and_keep_the_verdicts_in_sight(browser, page_file, width):
    page = Opened(browser, page_file, NO_WEBGL, viewport={"width": width, "height": 780})
    assert page.do("document.documentElement.scrollWidth") <= width
    for selector in ("[data-verdict=accept]", "#research", "#pane-axial"):
        box = page.page.locator(selector).bounding_box()
        assert box["x"] >= 0 and box["x"] + box["width"] <= width
        assert box["y"] >= 0 and box["y"] + box["height"] <= 780
    page.close()


def _header(kind: str) -> bytes:
    """A file of shape 3 x 4 x 5 with the forms of its kind."""
    maker = nibabel.Nifti2Image if kind == "NIfTI-2" else nibabel.Nifti1Image
    affine = _affine(TURN * [1, 1, -1], (0.8, 0.7, 1.2))
    image = maker(np.arange(60, dtype=np.int16).reshape(3, 4, 5), None if kind == "no forms" else affine)
    if kind == "qform only":
        image.set_qform(affine, 1)
        image.set_sform(None, 0)
    if kind == "no forms":
        image.header.set_zooms((0.8, 0.7, 1.2))
        image.header["qform_code"] = image.header["sform_code"] = 0
    if kind == "big-endian":
        image = maker(image.dataobj, affine, image.header.as_byteswapped(">"))
    return image.to_bytes()


@pytest.mark.parametrize("kind", ["sform", "qform only", "no forms", "NIfTI-2", "big-endian"])
def test_headers_are_read_as_nibabel_reads_them(opened, kind):
    content = _header(kind)
    maker = nibabel.Nifti2Image if kind == "NIfTI-2" else nibabel.Nifti1Image
    expected = maker.from_bytes(content)
    script = f"""(() => {{
      const {{ shape, affine, voxels }} = readNifti(Uint8Array.from({list(content)}));
      return {{ shape, affine, voxels: Array.from(voxels) }};
    }})()"""
    read = opened.do(script)
    assert tuple(read["shape"]) == expected.shape
    assert np.allclose(read["affine"], expected.affine[:3], atol=1e-5)
    assert (np.asarray(read["voxels"]) == np.asarray(expected.dataobj).ravel(order="F")).all()
