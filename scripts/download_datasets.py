"""Fetch the data sets that STEGO was published on: all of them, or those named.

    python scripts/download_datasets.py --list
    python scripts/download_datasets.py potsdam pytorch_data_dir=data
    python scripts/download_datasets.py potsdam --from brought_on_a_stick.zip

They go to PYTORCH_DATA_DIR, and unpacked there. Proxies: https_proxy, http_proxy, no_proxy. A hash is checked where
the authors published one; elsewhere that of the first download is recorded beside the file and checked from then on.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from medseg.cli import guarded


def main(arguments: list[str]) -> int:
    """Fetch, check and record; 1 when a download failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help="what to fetch, or pytorch_data_dir=FOLDER")
    parser.add_argument("--pytorch_data_dir", type=Path, default=Path(), metavar="FOLDER", help="default: here")
    parser.add_argument("--from", type=Path, dest="source", metavar="FILE", help="the file, brought another way")
    parser.add_argument("--list", action="store_true", help="say what there is, and fetch nothing")
    named = [f"--{word}" if word.startswith("pytorch_data_dir=") else word for word in arguments]
    asked = parser.parse_args(named)

    from medseg.cli.answers import answer_with, start_logging
    from medseg.workflows.downloads import DATASETS, chosen, fetch

    start_logging(quiet=False, verbose=False)
    if asked.list:
        print("\n".join(f"{item.name}: {item.about}; {item.address}" for item in DATASETS))
        return 0
    answer = fetch(chosen(asked.names, DATASETS), asked.pytorch_data_dir, source=asked.source, unpack=True)
    return answer_with(answer, as_json=False)


if __name__ == "__main__":
    sys.exit(guarded(lambda: main(sys.argv[1:])))
