"""This file times the whole liver chain on a hundred pictures, stage by stage, with Python's profiler.

The chain is `medseg run liver_ultrasound` as it ships: student, STEGO, masks. A stage is a function of the package;
what it calls is in its minutes, so a stage that is part of another is counted in both. The profiler slows loops of
Python a little, and networks not at all.
"""

from __future__ import annotations

import cProfile
import os
import pstats
import shutil
import time
from pathlib import Path

import torch
from liver_cases import Picture, Plan
from liver_runs import TRIAL, TRIAL_STUDENT

from medseg.errors import MedsegError
from medseg.files import write_json
from medseg.workflows.reconstruction import reconstruct_run
from medseg.workflows.training import train_run

PICTURES = 100
FROZEN = "frozen networks, all together"
STAGES = (
    ("training", "workflows/training.py", "train_run"),
    ("- student, all rounds", "workflows/students.py", "student_of_run"),
    ("- features of patches", "workflows/training.py", "store_cases"),
    ("- STEGO and clusters", "stego/training.py", "train"),
    ("masks", "workflows/reconstruction.py", "reconstruct_run"),
    ("preparation (sector, overlays), all together", "prepare/chain.py", "prepare_case"),
    (FROZEN, "features/frozen.py", "maps"),
    (FROZEN, "features/frozen.py", "_raw_tokens"),
    ("networks of the student, all together", "student/liver/network.py", "forward"),
    ("teacher, all together", "teachers/liver.py", "teach_from_cues"),
    ("random walkers, all together", "teachers/random_walk.py", "__init__"),
    ("random walkers, all together", "teachers/random_walk.py", "answers"),
)
"""Words, file and function of each stage; of equal words the sum."""


def report(plan: Plan, config: str = "liver_ultrasound") -> None:
    """Run the chain, print the minutes and write them to `times.json`."""
    folder = plan.work / "times"
    shutil.rmtree(folder, ignore_errors=True)
    images = folder / "images"
    count = _hundred(plan, images)
    profiler = cProfile.Profile()
    start, cpu = time.monotonic(), time.process_time()
    with profiler:
        train_run(config, images, folder / "run", overrides=[*TRIAL, *TRIAL_STUDENT] if plan.trial else [])
        reconstruct_run(folder / "run", images, folder / "masks", brief=True)
    wall_minutes, cpu_minutes = (time.monotonic() - start) / 60, (time.process_time() - cpu) / 60
    minutes = stage_minutes(pstats.Stats(profiler))
    share = minutes[FROZEN] / wall_minutes
    print(f"{config}, {count} pictures, {torch.get_num_threads()} threads on {os.cpu_count()} cores")
    print(f"{'whole chain':46}{wall_minutes:8.2f} minutes on the clock, {cpu_minutes:.2f} of computing")
    for stage, spent in minutes.items():
        print(f"{stage:46}{spent:8.2f}")
    print(f"{'share of the frozen networks':46}{share:8.0%}")
    content = {"config": config, "pictures": count, "minutes": wall_minutes, "cpu_minutes": cpu_minutes}
    write_json(folder / "times.json", content | {"stages": minutes, "share_of_frozen_networks": share})


def stage_minutes(stats: pstats.Stats) -> dict[str, float]:
    """Minutes of each stage, with what it calls; 0 for one that was not called."""
    minutes = dict.fromkeys([words for words, _, _ in STAGES], 0.0)
    for (path, _, function), (_, _, _, cumulative, _) in stats.stats.items():  # type: ignore[attr-defined]
        for words, end, name in STAGES:
            if function == name and Path(path).as_posix().endswith(end):
                minutes[words] += cumulative / 60
    return minutes


def _hundred(plan: Plan, folder: Path) -> int:
    """A folder of a hundred pictures (in a trial all there are): those to learn from, then the first ones once more."""
    folder.mkdir(parents=True)
    pictures: list[Picture] = list(plan.learn)
    if not pictures:
        raise MedsegError("the plan must hold pictures to learn from, got none; name the data folder")
    wanted = len(pictures) if plan.trial else PICTURES
    for number in range(wanted):
        again, index = divmod(number, len(pictures))
        source = pictures[index].image
        shutil.copyfile(source, folder / f"{source.stem}{f'_again_{again}' if again else ''}{source.suffix}")
    return wanted
