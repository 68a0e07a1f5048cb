"""This file writes masks as BIDS derivatives: `sub-X/[ses-Y/]anat/sub-X_..._desc-medseg_dseg.nii.gz`.

*Entities* are the parts of a BIDS name (`sub-01`, `ses-02`, `acq-tof`). A source with a BIDS name hands its entities
down, in their order; any other case becomes the subject that its name gives when only letters and digits are left.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from urllib.parse import quote

from medseg import __version__
from medseg.errors import MedsegError
from medseg.files import replacing, write_json, write_text
from medseg.naming.classes import ClassEntry
from medseg.review.exports.masks import Mask
from medseg.scans.masks import write_like
from medseg.scans.names import split_extension

_BIDS_VERSION = "1.10.0"
_DATATYPES = ("anat", "angio", "perf", "dwi", "func", "fmap", "pet")
"""Folders of a subject that a source may lie in; all others become `anat`."""
_NAME = re.compile(r"(?P<entities>sub-[a-zA-Z0-9]+(_[a-z]+-[a-zA-Z0-9+]+)*)(_[a-zA-Z0-9]+)?")
_OWN = ("label", "desc")
_NOT_A_NAME = re.compile(r"[^a-zA-Z0-9]")


@dataclass(frozen=True)
class BidsName:
    """Where the files of a case go.

    Attributes:
        folder: relative to the data set.
        entities: the beginning of each file name.
    """

    folder: PurePosixPath
    entities: str

    def file(self, suffix: str, extension: str, label: str = "") -> PurePosixPath:
        """A file of the case; `label` is the one class that it holds."""
        middle = f"_label-{label}" if label else ""
        return self.folder / f"{self.entities}{middle}_desc-medseg_{suffix}{extension}"


def bids_name(source: str, case_id: str) -> BidsName:
    """The BIDS name of a case.

    Args:
        source: the scan, relative to where the scans are.
        case_id: of the case, for sources without a BIDS name.

    Raises:
        MedsegError: no letter or digit is left of the case's name.
    """
    path = PurePosixPath(source)
    named = _NAME.fullmatch(split_extension(path.name)[0])
    if named is None:
        word = _NOT_A_NAME.sub("", case_id)
        if not word:
            raise MedsegError(f"{case_id} must have letters or digits for a BIDS name, got none; rename the case")
        return BidsName(PurePosixPath(f"sub-{word}", "anat"), f"sub-{word}")
    entities = [part for part in named["entities"].split("_") if part.split("-")[0] not in _OWN]
    folders = [entity for entity in entities if entity.startswith(("sub-", "ses-"))]
    datatype = path.parent.name if path.parent.name in _DATATYPES else "anat"
    return BidsName(PurePosixPath(*folders, datatype), "_".join(entities))


def write_bids(root: Path, mask: Mask, name: BidsName, *, probabilities: Path | None) -> None:
    """Write the mask and its probabilities with a JSON file beside each.

    Args:
        root: the data set.
        mask: of a volume.
        name: of the case.
        probabilities: `CASE_prob.nii.gz`, which is copied.

    Raises:
        MedsegError: the source is a picture, for which BIDS has no place.
    """
    if mask.is_picture:
        raise MedsegError(f"{mask.case_id} must be a volume for BIDS derivatives, got a picture; leave out bids")
    about = {"Sources": [f"bids:raw:{quote(mask.source)}"], "SpatialReference": "orig"}
    write_like(root / name.file("dseg", ".nii.gz"), mask.labels, mask.header)
    write_json(root / name.file("dseg", ".json"), {**about, "Manual": mask.is_reviewed})
    if probabilities is None:
        return
    names = [entry.name for entry in mask.classes]
    label = _NOT_A_NAME.sub("", names[0]) if len(names) == 1 else ""
    with replacing(root / name.file("probseg", ".nii.gz", label)) as beside:
        shutil.copyfile(probabilities, beside)
    write_json(root / name.file("probseg", ".json", label), {**about, "LabelMap": names})


def write_bids_description(root: Path, classes: Sequence[ClassEntry], *, scans: str) -> None:
    """Write what belongs to all cases: `dataset_description.json`, the table of classes and a README.

    Args:
        root: the data set.
        classes: what the values mean.
        scans: where the scans are, relative to the data set.
    """
    link = quote(scans)
    description = {
        "Name": "medseg segmentations",
        "BIDSVersion": _BIDS_VERSION,
        "DatasetType": "derivative",
        "GeneratedBy": [{"Name": "medseg", "Version": __version__, "Description": "Research use only"}],
        "SourceDatasets": [{"URL": link}],
        "DatasetLinks": {"raw": link},
    }
    write_json(root / "dataset_description.json", description)
    rows = ["index\tname\tcolor", *(f"{entry.value}\t{entry.name}\t{entry.colour}" for entry in classes)]
    write_text(root / "desc-medseg_dseg.tsv", "\n".join(rows) + "\n")
    write_text(root / "README", f"Masks that medseg {__version__} made of the scans in {scans}. Research use only.\n")
