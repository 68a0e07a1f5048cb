"""This file keeps what is learnt from on disk: some frames of every case, what is seen of them, and their lessons.

A case has one folder. In it lie `echoes.npy`, `cues.npy`, with a trunk `maps_0.npy` to `maps_2.npy` (float16, as the
trunk gave them), the lessons `probability.npy` and `certain.npy`, and, written last, `frames.json` with plain values
and the *key*, a hash of everything the files depend on. *Relearnt* means that the lessons are those of another folder.
The words of `looks.py` hold.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float16, Float32, Int64, UInt8

from medseg.errors import MedsegError
from medseg.features.student.liver.looks import ECHO_PIXELS, STAGES, Look, Trunk, look_at
from medseg.features.teachers.liver import CELLS, Cues, Lesson, leaning, teach_from_cues, why_no_liver
from medseg.files import read_record, replacing, write_json

MOST_FRAMES = 32
"""Frames of a case that are learnt from: neighbours of a cine are alike, and a long one need not cost more."""
_ARRAYS = ("echoes", "cues", "probability", "certain")
_FACTS = ("key", "case_id", "numbers", "agreements", "leanings", "alarms", "channels")
_ADVICE = "remove the folder, so that it is made anew"


class StudentFrames:
    """The frames of one prepared case with their lessons, on disk; arrays are mapped when they are first read.

    Args:
        folder: where `store_frames` put them.
        relearnt: folder of other lessons, see `store_lessons`.

    Attributes:
        key, case_id: of what it is.
        numbers: of the frames in their case.
        agreements: of the teacher's settings, for each frame.
        leanings: of each frame, see `teachers/liver.py`; below 0 it looks mirrored.
        alarms: why a frame seems to show no liver, or None, for each frame.
        channels: of the trunk's maps; empty without one.

    Raises:
        MedsegError: the folder holds no complete case.
    """

    def __init__(self, folder: Path, relearnt: Path | None = None) -> None:
        self.folder = Path(folder)
        self._lesson_folder = self.folder if relearnt is None else Path(relearnt)
        facts = read_record(self.folder / "frames.json", *_FACTS, advice=_ADVICE)
        self.key: str = facts["key"]
        self.case_id: str = facts["case_id"]
        self.numbers: list[int] = facts["numbers"]
        self.agreements: list[float] = facts["agreements"]
        self.leanings: list[float] = facts["leanings"]
        self.alarms: list[str | None] = facts["alarms"]
        self.channels: list[int] = facts["channels"]

    def __len__(self) -> int:
        return len(self.numbers)

    def __reduce__(self) -> tuple[type, tuple[Path, Path]]:
        # A mapped array would be pickled whole.
        return StudentFrames, (self.folder, self._lesson_folder)

    @cached_property
    def echoes(self) -> Float16[np.ndarray, "n 64 64"]:
        """Log intensity."""
        return self._mapped(self.folder / "echoes.npy", (ECHO_PIXELS, ECHO_PIXELS))

    @cached_property
    def cues(self) -> Float32[np.ndarray, "n c 48 48"]:
        """The teacher's cues in their order."""
        return self._mapped(self.folder / "cues.npy", (len(Cues._fields), CELLS, CELLS))

    @cached_property
    def maps(self) -> tuple[Float16[np.ndarray, "n _ _ _"], ...]:
        """Of the trunk, finest first."""
        return tuple(self._mapped(self.folder / f"maps_{n}.npy", ()) for n in range(len(self.channels)))

    @cached_property
    def probability(self) -> Float16[np.ndarray, "n 48 48"]:
        """What the student should answer."""
        return self._mapped(self._lesson_folder / "probability.npy", (CELLS, CELLS))

    @cached_property
    def certain(self) -> UInt8[np.ndarray, "n 48 48"]:
        """1 where all of the teacher's settings agree."""
        return self._mapped(self._lesson_folder / "certain.npy", (CELLS, CELLS))

    def region(self, number: int) -> Bool[np.ndarray, "48 48"]:
        """Where a frame's sector lies inside its picture."""
        return self.cues[number, Cues._fields.index("region")] > 0

    def look(self, number: int) -> Look:
        """What is seen of a frame."""
        values = dict(zip(Cues._fields, np.array(self.cues[number]), strict=True))
        cues = Cues(**values | {"region": values["region"] > 0})
        return Look(
            self.echoes[number].astype(np.float32), cues, tuple(m[number].astype(np.float32) for m in self.maps)
        )

    def _mapped(self, path: Path, shape: tuple[int, ...]) -> np.ndarray:
        array = _read(path)
        if len(array) != len(self) or (shape and array.shape[1:] != shape):
            wanted = " x ".join(map(str, (len(self), *shape)))
            raise MedsegError(f"{path} must hold {wanted} values, got {array.shape}; {_ADVICE}")
        return array


def store_frames(
    folder: Path,
    sample: Mapping[str, Any],
    trunk: Trunk | None,
    *,
    key: str,
    device: Any = "cpu",
) -> StudentFrames:
    """Look at frames of a prepared case, let the teacher teach them, and store both; or take them where they are whole.

    Args:
        folder: of this case alone.
        sample: image, region and case_id.
        trunk: the frozen network, or None.
        key: hash of everything that the sample depends on, and of the trunk.
        device: where the trunk runs.

    Raises:
        MedsegError: no frame shows a sector.
        CannotWriteError: the disk is full or may not be written to.
    """
    if stored := open_frames(folder, key):
        return stored
    (folder / "frames.json").unlink(missing_ok=True)
    image, region = np.asarray(sample["image"][0]), np.asarray(sample["region"][0]) > 0
    numbers = chosen_frames(region)
    if not len(numbers):
        raise MedsegError(f"{sample['case_id']} must show a sector in some frame, got none; leave it out")
    looks = [look_at(image[..., n], region[..., n], trunk, device) for n in numbers]
    lessons = [teach_from_cues(look.cues, look.edges, look.context) for look in looks]
    _save(folder / "echoes.npy", np.stack([look.echoes for look in looks]).astype(np.float16))
    _save(folder / "cues.npy", np.stack([np.stack(look.cues).astype(np.float32) for look in looks]))
    stages = range(len(STAGES) if trunk is not None else 0)
    for stage in stages:
        _save(folder / f"maps_{stage}.npy", np.stack([look.maps[stage] for look in looks]).astype(np.float16))
    store_lessons(folder, lessons)
    facts = {
        "key": key,
        "case_id": str(sample["case_id"]),
        "numbers": numbers.tolist(),
        "agreements": [float(lesson.agreement) for lesson in lessons],
        "leanings": [leaning(look.cues, look.edges) for look in looks],
        "alarms": [
            why_no_liver(lesson, look.cues.region, look.context) for lesson, look in zip(lessons, looks, strict=True)
        ],
        "channels": [len(looks[0].maps[stage]) for stage in stages],
    }
    write_json(folder / "frames.json", facts)
    return StudentFrames(folder)


def open_frames(folder: Path, key: str) -> StudentFrames | None:
    """The case in a folder; None where it is missing, damaged, or another one's, and so to be stored anew."""
    try:
        frames = StudentFrames(folder)
        whole = frames.key == key and all(len(getattr(frames, name)) for name in _ARRAYS)
        whole = whole and len(frames.maps) == len(frames.channels)
    except (MedsegError, TypeError):
        return None
    return frames if whole else None


def store_lessons(folder: Path, lessons: Sequence[Lesson]) -> None:
    """Store lessons of all frames of a case in a folder."""
    _save(folder / "certain.npy", np.stack([lesson.certain for lesson in lessons]).astype(np.uint8))
    # last, so that it tells that both are there
    _save(folder / "probability.npy", np.stack([lesson.probability for lesson in lessons]).astype(np.float16))


def chosen_frames(region: Bool[np.ndarray, "i j k"]) -> Int64[np.ndarray, " n"]:
    """Up to 32 evenly spaced ones of the frames that show a sector."""
    shown = np.flatnonzero(region.any((0, 1)))
    return shown[np.unique(np.linspace(0, len(shown) - 1, MOST_FRAMES).round().astype(int))] if len(shown) else shown


def _save(path: Path, array: np.ndarray) -> None:
    with replacing(path) as beside:
        np.save(beside, array)


def _read(path: Path) -> np.ndarray:
    try:
        return np.load(path, mmap_mode="r")
    except (OSError, ValueError, EOFError) as error:
        raise MedsegError(f"{path} must be a whole array, got {error}; {_ADVICE}") from error
