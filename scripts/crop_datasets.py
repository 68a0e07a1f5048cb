"""Make a cropped copy of a data set of images: corners and centre, or random places, labels alike.

    python scripts/crop_datasets.py pytorch_data_dir=data dir_dataset_name=suim crop_type=five crop_ratio=.5
    python scripts/crop_datasets.py --scans data/suim --out data/cropped crop_type=random crop_ratio=.7 --scheme suim

Written: OUT/NAME_TYPE_crop_RATIO/{img,label}/{train,val}/N.png. Images are PNG, without loss.
"""

from __future__ import annotations

import sys

from medseg.cli import guarded


def main(arguments: list[str]) -> int:
    """Translate the options and crop; 1 when an image failed."""
    from medseg.cli.answers import answer_with, start_logging
    from medseg.workflows.published_commands import read_request

    start_logging(quiet=False, verbose=False)
    asked = read_request(arguments, "crop", __doc__ or "")
    scans = asked.required_scans()
    actions = asked.actions

    from medseg.scans.shipped_schemes import load_scheme
    from medseg.workflows.cropping import crop_pictures

    answer = crop_pictures(
        scans,
        asked.out or scans.parent / "cropped",
        name=scans.resolve().name if actions["name"] == "directory" else actions["name"],
        crop_type=actions.get("crop_type", "five"),
        ratio=actions.get("crop_ratio", 0.5),
        intake=asked.intake,
        scheme=load_scheme(asked.scheme) if asked.scheme else None,
    )
    return answer_with(answer, as_json=False)


if __name__ == "__main__":
    sys.exit(guarded(lambda: main(sys.argv[1:])))
