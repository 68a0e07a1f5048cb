"""This file writes `data_templates/`: every layout that medseg reads, with tiny synthetic volumes and pictures.

Run it from the checkout: `python scripts/make_data_templates.py [-o FOLDER]`. Equal arguments give equal files.
"""

from __future__ import annotations

import argparse
import gzip
import io
import json
from pathlib import Path

import nibabel
import numpy as np
import scipy.io
from PIL import Image

SHAPE = (14, 12, 10)
SPACING = (0.5, 0.5, 0.8)
PICTURE_SHAPE = (12, 16)


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


def make_picture(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """A green hill under blue sky with a grey tower: colours uint8 [h, w, 3] and the classes 0, 1, 2 of the three."""
    rows, columns = np.indices(PICTURE_SHAPE)
    hill = rows > 7 + 2 * np.sin(columns / 3 + seed)
    tower = (abs(columns - 5 - seed) < 2) & (rows > 3)
    classes = np.where(tower, 2, np.where(hill, 0, 1)).astype(np.uint8)
    colours = np.array([[60, 130, 50], [110, 170, 230], [120, 115, 110]], np.uint8)[classes]
    noise = np.random.default_rng(seed).integers(0, 20, PICTURE_SHAPE)[..., None]
    return (colours + noise).astype(np.uint8), classes


def write_picture(path: Path, values: np.ndarray) -> None:
    """Write values [h, w] or [h, w, 3] in the format that the name says."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values).save(path, **({"compression": "tiff_deflate"} if path.suffix == ".tif" else {}))


def write_matlab(path: Path, name: str, values: np.ndarray) -> None:
    """Write one array as MATLAB 5, without a time stamp."""
    path.parent.mkdir(parents=True, exist_ok=True)
    content = io.BytesIO()
    scipy.io.savemat(content, {name: values})
    path.write_bytes(b"MATLAB 5.0 MAT-file".ljust(116) + content.getvalue()[116:])


def write_lines(path: Path, *lines: str) -> None:
    """Write a text file, one line each."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8", newline="\n")


def write_image_folders(out: Path) -> None:
    """Pictures in plain folders."""
    pictures = [make_picture(seed) for seed in range(4)]
    for name, split, seed in (("meadow", "train", 0), ("park", "train", 1), ("shore", "val", 2)):
        picture, classes = pictures[seed]
        write_picture(out / "image_folder" / "imgs" / split / f"{name}.jpg", picture)
        if name != "park":  # a part of the images may have labels
            write_picture(out / "image_folder" / "labels" / split / f"{name}.png", classes)
        write_picture(out / "datus" / split / "images" / f"{name}.png", picture)
        write_picture(out / "datus" / split / "true_masks" / f"{name}.png", classes)
    write_picture(out / "bare_images" / "meadow.png", pictures[0][0])
    write_picture(out / "bare_images" / "grey.png", pictures[1][0][..., 0])
    write_picture(out / "bare_images" / "more" / "by the sea.jpg", pictures[2][0])
    for number, (picture, _) in enumerate(pictures):
        name = f"cine_{number // 2 + 1:02d}/frame_{number % 2 + 1:04d}.png"
        write_picture(out / "cine_frames" / name, picture[..., 0])

    beside = out / "side_by_side"
    colours = np.array([[0, 0, 0], [66, 133, 244], [219, 68, 55]], np.uint8)
    for name, (picture, classes) in zip(("meadow", "park"), pictures[:2], strict=True):
        write_picture(beside / f"{name}.jpg", picture)
        write_picture(beside / f"{name}.png", colours[classes])
    sky, tower = '  - {value: 1, name: sky, colour: "#4285f4"}', '  - {value: 2, name: tower, colour: "#db4437"}'
    write_lines(beside / "classes.yaml", "classes:", sky, tower)


def write_data_sets(out: Path) -> None:
    """Pictures as known data sets come."""
    pictures = [make_picture(seed) for seed in range(3)]
    for number, (split, (picture, classes)) in enumerate(zip(("train", "train", "val"), pictures, strict=True)):
        coco = f"{split}2017/{number + 9:012d}"
        write_picture(out / "cocostuff" / "images" / f"{coco}.jpg", picture)
        write_picture(out / "cocostuff" / "annotations" / f"{coco}.png", np.array([123, 156, 95], np.uint8)[classes])

        frame = f"{split}/{'aachen' if split == 'train' else 'lindau'}/{split}_{number:06d}_000019"
        write_picture(out / "cityscapes" / "leftImg8bit" / f"{frame}_leftImg8bit.png", picture)
        ids = np.array([22, 23, 3], np.uint8)[classes]
        write_picture(out / "cityscapes" / "gtFine" / f"{frame}_gtFine_labelIds.png", ids)

        crops = out / "cropped" / "cocostuff3_five_crop_0.5"
        write_picture(crops / "img" / split / f"{number % 2}.jpg", picture)
        write_picture(crops / "label" / split / f"{number % 2}.png", np.array([2, 1, 0], np.uint8)[classes])

        write_picture(out / "potsdam_style" / "imgs" / f"{number}.png", picture)
        write_matlab(out / "potsdam" / "imgs" / f"{number}.mat", "img", np.dstack([picture, picture[..., :1]]))
        if number != 1:
            write_matlab(out / "potsdam_style" / "gt" / f"{number}.mat", "imageData", classes)
            write_matlab(out / "potsdam" / "gt" / f"{number}.mat", "gt", np.array([2, 0, 1], np.uint8)[classes])
    for layout in ("potsdam_style", "potsdam"):
        write_lines(out / layout / "all.txt", "0", "1", "2")
        for name, number in (("labelled_train", "0"), ("unlabelled_train", "1"), ("labelled_test", "2")):
            write_lines(out / layout / f"{name}.txt", number)

    colours = np.array([[0, 255, 255], [255, 255, 255], [0, 0, 255]], np.uint8)
    for name, (picture, classes) in zip(("top_potsdam_2_10", "top_potsdam_2_11"), pictures[:2], strict=True):
        write_picture(out / "potsdam_raw" / "2_Ortho_RGB" / f"{name}_RGB.tif", picture)
        write_picture(out / "potsdam_raw" / "5_Labels_for_participants" / f"{name}_label.tif", colours[classes])


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
    write_image_folders(out)
    write_data_sets(out)


if __name__ == "__main__":
    main()
