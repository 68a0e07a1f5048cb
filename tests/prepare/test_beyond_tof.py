"""CT angiograms and contrast MRA through the shipped configs: the vessels come out, bone and lungs do not."""

from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from prepare.angiograms import SPACING, ct_volume, mr_volume, trunk

from medseg.config import load_config
from medseg.errors import MedsegError
from medseg.prepare import ct
from medseg.prepare.chain import angiogram_transforms, invert, prepare_case
from medseg.prepare.vesselness import FluxMaps, flux_rule
from medseg.scans.cases import Case
from medseg.workflows.parts import preparation

COARSE = "prepare.spacing=null"  # the phantoms' own grid, to be quick


def write(folder: Path, volume: np.ndarray) -> Case:
    path = folder / "scan.nii.gz"
    nib.save(nib.Nifti1Image(volume, np.diag([*SPACING, 1.0])), path)
    return Case("scan", path, "scan")


def prepared(folder: Path, volume: np.ndarray, config: str, *overrides: str):
    return prepare_case(write(folder, volume), preparation(load_config(config, overrides).prepare))


def rule_mask(sample, spacing=SPACING):
    image, region, salience, tubularity = (
        sample[key][0].numpy() for key in ("image", "region", "salience", "tubularity")
    )
    facts = sample["facts"]
    maps = FluxMaps(salience, tubularity, image, 1.0, 1.0, facts["flux_alarm"], facts["flux_signal"], facts["radii_mm"])
    return flux_rule(image, region > 0, spacing, maps=maps)


def dice(predicted, reference):
    return 2 * np.count_nonzero(predicted & reference) / (np.count_nonzero(predicted) + np.count_nonzero(reference))


def test_a_cta_gives_its_vessels_and_no_bone(tmp_path):
    parts = trunk()
    sample = prepared(tmp_path, ct_volume(parts), "cta", COARSE)
    mask = rule_mask(sample)
    assert dice(mask, parts.vessels) > 0.9
    assert dice(np.roll(mask, 8, axis=0), parts.vessels) < 0.6
    assert np.mean(mask[parts.bone]) < 0.01
    facts = sample["facts"]
    assert facts["flux_alarm"] is None and facts["modality"] == "cta" and facts["region_source"] == "body"
    assert facts["plateau_hu"] == pytest.approx(350, abs=15)
    assert facts["bone_ml"] > 20 and facts["calcification_ml"] > 0 and facts["metal_ml"] == 0 and facts["notes"] == []
    assert set(sample) == {"image", "region", "salience", "tubularity", "case_id", "patient", "facts"}


def test_without_the_bone_rule_the_spine_would_be_a_vessel(tmp_path, monkeypatch):
    parts = trunk()
    find_parts = ct.find_parts

    def without_bone(*args):
        found = find_parts(*args)
        return replace(found, bone=np.zeros_like(found.bone))

    monkeypatch.setattr(ct, "find_parts", without_bone)
    assert np.mean(rule_mask(prepared(tmp_path, ct_volume(parts), "cta", COARSE))[parts.bone]) > 0.1


def test_a_ce_mra_gives_its_vessels_inside_the_body(tmp_path):
    parts = trunk()
    sample = prepared(tmp_path, mr_volume(parts), "ce_mra")
    assert dice(rule_mask(sample), parts.vessels | parts.plaque) > 0.85
    assert sample["facts"]["region_source"] == "body"
    region = sample["region"][0].numpy() > 0
    assert region[parts.lungs].all() and dice(region, parts.body) > 0.95


def test_the_grid_of_a_cta_is_its_own_and_the_way_back_is_known(tmp_path):
    sample = prepared(tmp_path, ct_volume(trunk()), "cta", "prepare.spacing=[2,2,2]")
    assert sample["image"].shape != (1, 64, 60, 40)
    back = invert(sample["region"], sample, nearest=True)[0]
    assert dice(back > 0, trunk().body) > 0.95


def test_a_cta_without_contrast_says_so(tmp_path, caplog):
    sample = prepared(tmp_path, ct_volume(trunk(), contrast_hu=45), "cta", COARSE)
    assert "no lumen is filled evenly with contrast" in sample["facts"]["flux_alarm"]
    assert sample["facts"]["flux_alarm"] in caplog.text
    assert not rule_mask(sample).any()


def test_metal_is_said(tmp_path, caplog):
    volume = ct_volume(trunk())
    volume[30:33, 50:52, 10:14] = 3000
    sample = prepared(tmp_path, volume, "cta", COARSE)
    assert sample["facts"]["metal_ml"] == pytest.approx(24 * 4.5 / 1000, abs=0.01)
    assert any("metal" in note for note in sample["facts"]["notes"]) and "metal" in caplog.text


def test_a_wrong_config_is_one_line_that_names_the_right_one(tmp_path):
    with pytest.raises(MedsegError, match=r"scan\.nii\.gz must be an MR image, got CT values .*config cta"):
        prepared(tmp_path, ct_volume(trunk()), "tof_mra")
    with pytest.raises(MedsegError, match=r"scan\.nii\.gz must be CT in Hounsfield units .*config tof_mra"):
        prepared(tmp_path, mr_volume(trunk()), "cta")


def test_voxels_that_are_coarse_for_the_radii_are_said_and_others_are_not(tmp_path):
    volume = mr_volume(trunk())
    coarse = prepared(tmp_path, volume, "tof_mra", "prepare.brain_mask=none")
    assert coarse["facts"]["notes"] == [
        "voxels of 1.5 x 1.5 x 2 mm are coarse for vessels of 0.4 mm radius: thin ones are lost"
    ]
    assert prepared(tmp_path, volume, "ce_mra")["facts"]["notes"] == []


def test_forty_percent_of_scattered_zeros_are_named_as_the_reason_for_an_empty_mask(tmp_path):
    volume = mr_volume(trunk())
    volume[np.random.default_rng(0).random(volume.shape) < 0.4] = 0
    sample = prepared(tmp_path, volume, "tof_mra", "prepare.brain_mask=none")
    assert "missing values" in sample["facts"]["flux_alarm"]


def test_a_given_mask_goes_before_the_body(tmp_path):
    parts = trunk()
    case = write(tmp_path, ct_volume(parts))
    mask = tmp_path / "mask.nii.gz"
    nib.save(nib.Nifti1Image(parts.body.astype(np.uint8), np.diag([*SPACING, 1.0])), mask)
    transforms = angiogram_transforms(modality="cta", brain_mask="auto", radii_mm=(3.0, 9.0))
    sample = prepare_case(Case("scan", case.image, "scan", mask=mask), transforms)
    assert sample["facts"]["region_source"] == "given"
    with pytest.raises(MedsegError, match="brain mask beside it"):
        prepare_case(case, angiogram_transforms(modality="cta", brain_mask="given"))


def test_a_trunk_has_no_brain_and_falls_back_to_the_body(tmp_path):
    for brain_mask in ("builtin", "auto"):
        sample = prepared(tmp_path, ct_volume(trunk()), "cta", COARSE, f"prepare.brain_mask={brain_mask}")
        assert sample["facts"]["region_source"] == "body"


def test_an_unknown_modality_is_refused():
    with pytest.raises(MedsegError, match="tof, ce_mra, cta"):
        angiogram_transforms(modality="pet")


@pytest.mark.parametrize(
    ("override", "reason"),
    [
        ("prepare.n4=true", "MR coils"),
        ("prepare.brain_mask=deepbet", "knows MR only"),
        ("prepare.radii_mm=[0.4,14]", "over 10 times the shortest"),
        ("prepare.radii_mm=[]", "at least 1"),
        ("prepare.modality=pet", "cta"),
    ],
)
def test_the_config_refuses_what_makes_no_sense_for_ct(override, reason):
    with pytest.raises(MedsegError, match=reason):
        load_config("cta", [override])
    load_config("ce_mra", ["prepare.n4=true", "prepare.brain_mask=deepbet"])
