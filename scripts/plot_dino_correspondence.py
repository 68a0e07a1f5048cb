"""Draw which places of pictures the frozen features, and a run's codes, hold to be like the points you name.

    python scripts/plot_dino_correspondence.py image_dir=photos output_root=plots
    python scripts/plot_dino_correspondence.py --image_dir a.jpg b.jpg --points 0.3,0.5 0.8,0.2 --plot_movie gif

Of a folder each picture is compared with the one it resembles most. Options are written `--name value` or `name=value`.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from medseg.cli import guarded
from medseg.cli.arguments import as_options
from medseg.errors import MedsegError

_MOVIES = {"false": None, "none": None, "true": "mp4", "mp4": "mp4", "gif": "gif"}


def point(text: str) -> tuple[float, float]:
    """`0.3,0.5` as row and column."""
    try:
        row, column = (float(part) for part in text.split(","))
    except ValueError:
        raise MedsegError(f"--points must be row,column from 0 to 1, got {text}; 0.5,0.5 is the middle") from None
    return row, column


def main(arguments: list[str]) -> int:
    """Parse the arguments and draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--image_dir", "--images", nargs="+", type=Path, required=True, help="folder, or pictures")
    parser.add_argument("--output_root", type=Path, default=Path("results/correspondence"))
    parser.add_argument("--config", default="pictures", help="config file or shipped name; says which backbone")
    parser.add_argument("--model_path", "--run", type=Path, metavar="RUN", help="a trained run, for codes as well")
    parser.add_argument("--points", nargs="+", default=["0.5,0.5"], metavar="ROW,COLUMN", help="from 0 to 1")
    parser.add_argument("--res", type=int, metavar="PIXELS", help="shorter side at which the backbone looks")
    parser.add_argument("--plot_correspondence", default="true", choices=("true", "false"), type=str.lower)
    parser.add_argument("--plot_movie", default="false", choices=tuple(_MOVIES), type=str.lower)
    parser.add_argument("--frames", type=int, default=60, help="of the movie")
    parser.add_argument("--set", action="append", default=[], dest="overrides", metavar="section.key=value")
    asked = parser.parse_args(as_options(arguments))
    movie = _MOVIES[asked.plot_movie]
    if asked.plot_correspondence == "false" and movie is None:
        raise MedsegError(
            "plot_correspondence must be true where plot_movie is false, got neither; ask for one of them"
        )

    from medseg.cli.answers import answer_with, start_logging
    from medseg.workflows.correspondence import plot_correspondence

    start_logging(quiet=False, verbose=False)
    answer = plot_correspondence(
        asked.image_dir[0] if len(asked.image_dir) == 1 else asked.image_dir,
        asked.output_root,
        config=asked.config,
        run=asked.model_path,
        points=[point(text) for text in asked.points],
        still=asked.plot_correspondence == "true",
        movie=movie,
        frames=asked.frames,
        resolution=asked.res,
        overrides=asked.overrides,
    )
    return answer_with(answer, as_json=False)


if __name__ == "__main__":
    sys.exit(guarded(lambda: main(sys.argv[1:])))
