"""This file shows which places of pictures resemble a place asked about, in frozen features and in learned codes."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from medseg.config import CHANGEABLE_AFTER_TRAINING, Config, change_config, load_config
from medseg.errors import MedsegError
from medseg.features.backbones import to_rgb
from medseg.features.correspondence import correspondence, enlarged
from medseg.features.student.vessels.student import load_student
from medseg.features.windows import display_of, is_volume_backbone
from medseg.files import require_folder
from medseg.prepare.chain import prepare_case
from medseg.progress import track
from medseg.review.correspondence_plots import correspondence_sheet, path_through, write_movie, write_sheet
from medseg.review.plots import orient
from medseg.runs import open_run
from medseg.scans.cases import Case
from medseg.scans.folders import find_cases
from medseg.scans.names import is_picture
from medseg.stego.model import ClusterModel
from medseg.workflows import parts

_log = logging.getLogger(__name__)

Point = tuple[float, float]
MOST_PICTURES = 12
"""Pictures of a folder that are drawn; each is compared with the one among them that it resembles most."""


@dataclass(frozen=True)
class View:
    """One slice of a case, as a network and as a person see it.

    Attributes:
        case: whose slice it is.
        shown: display values 0 to 1.
        features: of the whole slice; several backbones are joined.
        codes: the trained head's, where there is a run.
        turned: whether rows and columns of the slice have to be turned to be shown, as those of volumes.
    """

    case: Case
    shown: Float[np.ndarray, "h w 3"]
    features: Float[Tensor, "d hf wf"]
    codes: Float[Tensor, "e hf wf"] | None
    turned: bool

    @property
    def maps(self) -> dict[str, Tensor]:
        """What places are compared by, upright as they are shown."""
        found = {"feature": self.features} | ({} if self.codes is None else {"code": self.codes})
        return {name: _upright(values) if self.turned else values for name, values in found.items()}


class Viewer:
    """Looks at slices with a config's backbones, and with a run's head.

    Args:
        config: path or shipped name; a run brings its own.
        run: a trained run folder, for codes.
        overrides: `section.key=value`; with a run only of sections that may change after training.
        resolution: shorter side in pixels at which the backbones look; None: as prepared.

    Raises:
        MedsegError: config, run or weights cannot be used.
    """

    def __init__(self, config: str, run: Path | None, overrides: Sequence[str], resolution: int | None) -> None:
        record = None if run is None else open_run(run)
        if record is None:
            self.config: Config = load_config(config, overrides)
        else:
            self.config = change_config(record.config, overrides, sections=(*CHANGEABLE_AFTER_TRAINING, "run"))
        self.device = parts.start_fabric(self.config.run).device
        has_student = record is not None and (record.student / "student.json").is_file()
        student = load_student(record.student) if record is not None and has_student else None
        if "student" in self.config.features.backbone and student is None:
            raise MedsegError("features.backbone=student must come from a run, got none; give --run")
        self.backbones = parts.load_backbones(self.config.features, self.device, student=student)
        self._resolution = resolution
        self._chain = parts.preparation(self.config.prepare)
        self._head: ClusterModel | None = None
        if record is not None:
            geometry = parts.patch_geometry(self.config.patches)
            folder = record.method_folders("stego")[0]
            found = parts.load_clusterer(folder, self.backbones, geometry, self.device)
            assert isinstance(found, ClusterModel)  # the only clusterer that is stored
            self._head = found

    def prepared(self, case: Case) -> dict[str, Any]:
        """The prepared case.

        Raises:
            MedsegError: the case cannot be used.
        """
        return prepare_case(case, self._chain)

    def sample(self, case: Case) -> dict[str, Any]:
        """The prepared case, with what backbones compute once for it.

        Raises:
            MedsegError: the case cannot be used.
        """
        return parts.add_maps(self.prepared(case), self.backbones, self.device)

    @torch.no_grad()
    def view(self, case: Case, sample: dict[str, Any], number: int) -> View:
        """One axial slice of a prepared case."""
        plane = torch.as_tensor(sample["image"])[..., number].float()
        display = display_of(sample)
        shown = plane if display == "rgb" else 1 - torch.exp2(-plane.clamp(min=0))
        turned = not is_picture(case.image)
        upright = np.moveaxis(shown.expand(3, -1, -1).clamp(0, 1).numpy(), 0, -1)
        features = self._features(sample, plane, display, number)
        codes = None if self._head is None else self._head.codes(features[None])[0].cpu()
        return View(case, orient(upright) if turned else upright, features.cpu(), codes, turned)

    def _features(self, sample: dict[str, Any], plane: Tensor, display: str, number: int) -> Tensor:
        """Features of a whole slice; several backbones are brought to the finest grid and joined at norm 1 each."""
        found = []
        for backbone in self.backbones:
            if is_volume_backbone(backbone):
                box = (slice(0, plane.shape[1]), slice(0, plane.shape[2]), slice(number, number + 1))
                found.append(backbone.features_of_box(sample, box)[..., 0].to(self.device).float()[None])
                continue
            size = _network_size((plane.shape[1], plane.shape[2]), self._resolution, backbone.stride)
            resized = functional.interpolate(plane[None], size, mode="bilinear", align_corners=False, antialias=True)
            found.append(backbone(to_rgb(resized, display).to(self.device)).float())
        if len(found) == 1:
            return found[0][0]
        finest = max((tuple(block.shape[-2:]) for block in found), key=lambda size: size[0] * size[1])
        blocks = [functional.interpolate(b, finest, mode="bilinear", align_corners=False) for b in found]
        return torch.cat([functional.normalize(block, dim=1) for block in blocks], dim=1)[0]


def plot_correspondence(
    images: Path | Sequence[Path],
    out: Path,
    *,
    config: str = "pictures",
    run: Path | None = None,
    points: Sequence[Point] = ((0.5, 0.5),),
    still: bool = True,
    movie: Literal["mp4", "gif"] | None = None,
    frames: int = 60,
    resolution: int | None = None,
    overrides: Sequence[str] = (),
) -> dict[str, Any]:
    """Draw for each point of a picture where it, and other pictures, look alike to the features and the codes.

    Args:
        images: a folder, in which each picture is compared with the one it resembles most; or pictures, of which the
            first holds the points and all are searched. Of a volume the middle slice is taken.
        out: receives `CASE_correspondence.png`, `.mp4` or `.gif`.
        config: path or shipped name of the config that says which backbones.
        run: a trained run, for codes; its config is used instead.
        points: (row, column) in 0 to 1.
        still: whether to draw the picture.
        movie: in it a point moves along the points, or round the middle where there is one.
        frames: of the movie.
        resolution: shorter side at which the backbones look; more shows finer detail.
        overrides: `section.key=value`.

    Returns:
        `lines` for the terminal, `failed` pictures, `written` files.

    Raises:
        MedsegError: no picture, or config, run or points cannot be used.
    """
    for point in points:
        if not (len(point) == 2 and all(0 <= part <= 1 for part in point)):
            raise MedsegError(f"--points must be row,column from 0 to 1, got {point}; 0.5,0.5 is the middle")
    require_folder(out, "-o")
    cases, failed = _cases(images, out)
    viewer = Viewer(config, run, overrides, resolution)
    views = []
    for case in track(cases, "looking"):
        try:
            sample = viewer.sample(case)
            views.append(viewer.view(case, sample, sample["image"].shape[-1] // 2))
        except MedsegError as error:
            failed[case.case_id] = str(error)
            _log.error(str(error))
    if not views:
        raise MedsegError(f"IMAGES must hold a picture that can be used, got none: {'; '.join(failed.values())}")
    asked = _with_nearest(views) if isinstance(images, Path) else [views]
    written = []
    for group in track(asked, "drawing"):
        stem = f"{group[0].case.case_id}_correspondence"
        if still:
            written.append(out / f"{stem}.png")
            write_sheet(_sheet(group, points), written[-1])
        if movie:
            written.append(out / f"{stem}.{movie}")
            write_movie([_sheet(group, [point]) for point in path_through(points, frames)], written[-1])
    return {
        "lines": [
            f"correspondences of {len(asked)} of {len(cases)} pictures: {out}",
            *(f"  {path}" for path in written),
        ],
        "written": [str(path) for path in written],
        "failed": failed,
    }


def _cases(images: Path | Sequence[Path], out: Path) -> tuple[list[Case], dict[str, str]]:
    """The pictures, the first ones of a large folder, and what cannot be read."""
    if not isinstance(images, Path):
        return [case for path in images for case in find_cases(path).cases], {}
    listing = find_cases(images, skip=(out,))
    parts.say_listing(listing)
    if len(listing.cases) > MOST_PICTURES:
        _log.info("%d of %d pictures are drawn; name pictures to see others", MOST_PICTURES, len(listing.cases))
    return list(listing.cases[:MOST_PICTURES]), dict(listing.problems)


def _with_nearest(views: Sequence[View]) -> list[list[View]]:
    """Each view with the one whose mean feature is most like its own; a single one stays alone."""
    if len(views) == 1:
        return [[views[0]]]
    means = functional.normalize(torch.stack([view.features.mean((1, 2)) for view in views]), dim=1)
    likeness = (means @ means.T).fill_diagonal_(-torch.inf)
    return [[view, views[int(nearest)]] for view, nearest in zip(views, likeness.argmax(1), strict=True)]


def _sheet(views: Sequence[View], points: Sequence[Point]) -> np.ndarray:
    first = views[0]
    heats = {
        kind: [
            np.stack(
                [
                    enlarged(correspondence(values, point, view.maps[kind]), view.shown.shape[:2]).numpy()
                    for point in points
                ]
            )
            for view in views
        ]
        for kind, values in first.maps.items()
    }
    return correspondence_sheet([view.shown for view in views], [view.case.case_id for view in views], points, heats)


def _upright(values: Float[Tensor, "d i j"]) -> Float[Tensor, "d h w"]:
    """A map of a RAS slice as `orient` shows the slice."""
    return values.transpose(1, 2).flip(1, 2)


def _network_size(size: tuple[int, int], resolution: int | None, stride: int) -> tuple[int, int]:
    """Rows and columns at which a backbone looks: whole numbers of its stride, near the wanted resolution."""
    scale = 1.0 if resolution is None else resolution / min(size)
    rows, columns = (max(round(length * scale / stride), 1) * stride for length in size)
    return rows, columns
