"""Kill training and reconstruction at random moments and compare what they leave with an undisturbed run.

    python benchmarks/kill_and_resume.py --kills 5 3

It makes small phantoms in a temporary folder. POSIX only, because it sends SIGKILL.
"""

from __future__ import annotations

import argparse
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from medseg.files import hash_file
from medseg.phantoms.vessels import write_phantoms

SMALL = [
    "--set", "stego.steps=60", "--set", "patches.per_case=30", "--set", "prepare.brain_mask=none",
    "--set", "run.checkpoint_every=5",
]  # fmt: skip


def finished(command: list[str], kill_after_s: float | None) -> bool:
    """Run a command; kill it after so many seconds. True when it ended by itself."""
    process = subprocess.Popen([sys.executable, "-m", "medseg", *command, "-q"], stdout=subprocess.DEVNULL)
    try:
        status = process.wait(kill_after_s)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        return False
    if status:
        raise SystemExit(f"{' '.join(command)} ended with status {status}")
    return True


def hashes(folder: Path, patterns: tuple[str, ...]) -> dict[str, str]:
    """Content hash of every file that matches."""
    found = sorted(path for pattern in patterns for path in folder.rglob(pattern))
    return {path.relative_to(folder).as_posix(): hash_file(path) for path in found}


def main() -> None:
    """Compare killed runs with an undisturbed one."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, nargs=2, default=(5, 3), metavar=("TRAIN", "RECONSTRUCT"))
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    asked = parser.parse_args()
    chance = random.Random(asked.seed)
    with tempfile.TemporaryDirectory() as place:
        root = Path(place)
        scans = root / "scans"
        write_phantoms(scans, cases=3, seed=5, shape=(80, 80, 56), spacing=(0.7, 0.7, 0.8))
        train = ["train", "tof_mra", "--scans", str(scans), *SMALL, "--run"]
        reconstruct = ["reconstruct", str(root / "calm"), str(scans), "--compare", "-o"]
        same = True
        for name, command, kills, patterns in (
            ("training", train, asked.kills[0], ("weights.safetensors", "metrics.csv", "classes.yaml", "cards.json")),
            ("reconstruction", reconstruct, asked.kills[1], ("*.nii.gz", "*.png", "labels.txt")),
        ):
            calm = root / ("calm" if name == "training" else "calm_masks")
            start = time.monotonic()
            finished([*command, str(calm)], None)
            undisturbed_s = time.monotonic() - start
            wanted = hashes(calm, patterns)
            print(f"{name}: {undisturbed_s:.0f} s undisturbed, {len(wanted)} files", flush=True)
            for number in range(kills):
                killed = root / f"{name}_{number}"
                moment = chance.uniform(0.2, 0.95) * undisturbed_s
                was_killed = not finished([*command, str(killed)], moment)
                finished([*command, str(killed)], None)
                equal = hashes(killed, patterns) == wanted
                left = len(list(killed.rglob("*.part.*")))
                same &= equal
                how = f"killed after {moment:.1f} s" if was_killed else f"ended before {moment:.1f} s"
                print(
                    f"  {how}, resumed: {'identical' if equal else 'DIFFERENT'}, {left} temporary files left",
                    flush=True,
                )
    raise SystemExit(0 if same else 1)


if __name__ == "__main__":
    main()
