"""This file writes `data_templates/`: every layout of scans that medseg reads, with tiny synthetic volumes.

Run it from the checkout: `python scripts/make_data_templates.py [-o FOLDER]`. Equal arguments give equal files.
"""

from __future__ import annotations

import argparse
import gzip
import json
from pathlib import Path

import nibabel
import numpy as np

SHAPE = (14, 12, 10)
SPACING = (0.5, 0.5, 0.8)


def make_volumes(seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A bright tube in grey tissue in air: image int16, brain mask and label uint8, all [i, j, k]."""
    i, j, k = np.indices(SHAPE)
    radius = np.hypot((i - 6.5) / 6, (j - 5.5) / 5)
    brain = radius < 1
    vessel = np.hypot(i - 6 - 2 * np.sin(k / 3 + seed), j - 5) < 1.2
    noise = np.random.default_rng(seed).normal(0, 8, SHAPE)
    image = 20 + 80 * brain + 150 * (vessel & brain) + noise
    return image.round().clip(0).astype(np.int16), brain.astype(np.uint8), (vessel & brain).astype(np.uint8)


def write(path: Path, values: np.ndarray) -> None:
    """Write a volume as NIfTI, `.nii.gz` without a time stamp."""
    path.parent.mkdir(parents=True, exist_ok=True)
    affine = np.diag((*SPACING, 1.0))
    affine[:3, 3] = (-3.5, -3.0, -4.0)
    image = nibabel.Nifti1Image(values, affine)
    image.header.set_xyzt_units("mm")
    content = image.to_bytes()
    path.write_bytes(gzip.compress(content, 9, mtime=0) if path.suffix == ".gz" else content)


def main() -> None:
    """Write all layouts."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("-o", "--out", type=Path, default=Path(__file__).resolve().parents[1] / "data_templates")
    out = parser.parse_args().out
    volumes = {name: make_volumes(seed) for seed, name in enumerate(("002", "007", "013"))}
    for name, (image, brain, vessel) in volumes.items():
        write(out / "suffixes" / f"{name}_img.nii.gz", image)
        write(out / "suffixes" / f"{name}_mask.nii.gz", brain)
        write(out / "suffixes" / f"{name}_label.nii.gz", vessel)

        patient = out / "patient_folders" / f"P{name}"
        write(patient / "tof.nii.gz", image)
        write(patient / "brain_mask.nii.gz", brain)
        write(patient / "vessel.nii.gz", vessel)

        subject = f"sub-{name}"
        write(out / "bids" / subject / "anat" / f"{subject}_angio.nii.gz", image)
        derived = out / "bids" / "derivatives" / "manual" / subject / "anat"
        write(derived / f"{subject}_desc-brain_mask.nii.gz", brain)
        write(derived / f"{subject}_label-vessel_mask.nii.gz", vessel)

        ixi = f"IXI{name}-Guys-0{name}"
        write(out / "ixi" / f"{ixi}-MRA.nii.gz", image)
        if name == "002":
            write(out / "ixi" / f"{ixi}-T1.nii.gz", image)

        part = "Ts" if name == "013" else "Tr"
        write(out / "nnunet" / f"images{part}" / f"vessel_{name}_0000.nii.gz", image)
        write(out / "nnunet" / f"labels{part}" / f"vessel_{name}.nii.gz", vessel)

        for folder in ("datalist", "csv"):
            write(out / folder / "scans" / f"{name}.nii.gz", image)
            write(out / folder / "vessels" / f"{name}.nii.gz", vessel)
        write(out / "csv" / "brains" / f"{name}.nii.gz", brain)
    for split, name in zip(("train", "val", "test"), volumes, strict=True):
        write(out / "splits" / split / f"{name}_img.nii.gz", volumes[name][0])
        write(out / "splits" / split / f"{name}_label.nii.gz", volumes[name][2])
    entries = [{"image": f"scans/{name}.nii.gz", "label": f"vessels/{name}.nii.gz"} for name in volumes]
    datalist = {"training": entries[:1], "validation": entries[1:2], "test": [entries[2]["image"]]}
    (out / "datalist" / "datalist.json").write_text(
        json.dumps(datalist, indent=2) + "\n", encoding="utf-8", newline="\n"
    )
    rows = [
        "case,patient,image,mask,label",
        "002,anna,scans/002.nii.gz,brains/002.nii.gz,vessels/002.nii.gz",
        "007,anna,scans/007.nii.gz,builtin,vessels/007.nii.gz",
        "013,berta,scans/013.nii.gz,,",
    ]
    (out / "csv" / "cases.csv").write_text("\n".join(rows) + "\n", encoding="utf-8", newline="\n")


if __name__ == "__main__":
    main()
