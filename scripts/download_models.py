"""Fetch the published checkpoints and backbones: all of them, or those named.

    python scripts/download_models.py --list
    python scripts/download_models.py dino_deitsmall8_300ep_pretrain output_root=data
    python scripts/download_models.py dino_deitsmall8_300ep_pretrain --from brought_on_a_stick.pth

They go to OUTPUT_ROOT/saved_models and OUTPUT_ROOT/models. Proxies: https_proxy, http_proxy, no_proxy. A hash is
checked where the authors published one; elsewhere that of the first download is recorded beside the file and checked
from then on.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from medseg.cli import guarded


def main(arguments: list[str]) -> int:
    """Fetch, check and record; 1 when a download failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help="what to fetch, or output_root=FOLDER")
    parser.add_argument("--output_root", type=Path, default=Path(), metavar="FOLDER", help="default: here")
    parser.add_argument("--from", type=Path, dest="source", metavar="FILE", help="the file, brought another way")
    parser.add_argument("--list", action="store_true", help="say what there is, and fetch nothing")
    named = [f"--{word}" if word.startswith("output_root=") else word for word in arguments]
    asked = parser.parse_args(named)

    from medseg.cli.answers import answer_with, start_logging
    from medseg.workflows.downloads import MODELS, chosen, fetch

    start_logging(quiet=False, verbose=False)
    if asked.list:
        print("\n".join(f"{item.name}: {item.about}; {item.address}" for item in MODELS))
        return 0
    answer = fetch(chosen(asked.names, MODELS), asked.output_root, source=asked.source)
    return answer_with(answer, as_json=False)


if __name__ == "__main__":
    sys.exit(guarded(lambda: main(sys.argv[1:])))
