import itertools
import logging
import math
import pickle
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from medseg.errors import MedsegError
from medseg.prepare import chain, steps
from medseg.prepare.chain import angiogram_transforms, invert, prepare_case, voxel_spacing
from medseg.scans.cases import Case

SPACING = (0.7, 0.9, 1.6)


def tissue(shape=(29, 34, 23), seed=0):
    """Smooth tissue around 100 with two bright tubes, air in a corner, all values different."""
    rng = np.random.default_rng(seed)
    i, j, k = np.indices(shape)
    image = 100 + 5 * np.sin(i / 9) + 4 * np.cos(j / 7 + k / 11) + rng.uniform(0, 1, shape)
    image += 300 * np.exp(-((i - 14) ** 2 + (j - 16) ** 2) / 4) + 250 * np.exp(-((i - 20) ** 2 + (k - 12) ** 2) / 4)
    air = i + j < 9
    image[air] = rng.uniform(0, 1, air.sum())
    return image.astype(np.float32)


def affine_of(codes, spacing=SPACING, shape=(29, 34, 23)):
    """An affine whose voxel axes point along `codes`, slightly oblique, far from the origin."""
    ornt = nib.orientations.axcodes2ornt(codes)
    columns = np.zeros((3, 3))
    for axis, (world, sign) in enumerate(ornt):
        columns[int(world), axis] = sign * spacing[axis]
    turn = 0.07
    oblique = np.array([[math.cos(turn), -math.sin(turn), 0], [math.sin(turn), math.cos(turn), 0], [0, 0, 1]])
    affine = np.eye(4)
    affine[:3, :3] = oblique @ columns
    affine[:3, 3] = (-31.5, 12.25, 77)
    return affine


def write(path, array, affine=None):
    nib.save(nib.Nifti1Image(array, affine_of("LPS") if affine is None else affine), path)
    return path


@pytest.fixture
def case(tmp_path):
    return Case("a", write(tmp_path / "a_img.nii.gz", tissue()), "a")


def every_orientation():
    for axes in itertools.permutations(("LR", "PA", "IS")):
        for signs in itertools.product((0, 1), repeat=3):
            yield "".join(axis[sign] for axis, sign in zip(axes, signs, strict=True))


@pytest.fixture
def no_flux(monkeypatch):
    """Leave out the costly maps where a test is about geometry."""
    monkeypatch.setattr(chain.FluxMapsd, "__call__", lambda self, data: dict(data))


@pytest.mark.usefixtures("no_flux")
def test_predicting_the_identity_inverts_to_the_input_over_all_48_orientations(tmp_path):
    stored = tissue((7, 12, 9))
    transforms = angiogram_transforms(brain_mask="none")
    seen = set()
    for codes in every_orientation():
        seen.add(codes)
        case = Case(codes, write(tmp_path / f"{codes}.nii", stored, affine_of(codes)), codes)
        sample = prepare_case(case, transforms)
        assert "".join(nib.aff2axcodes(sample["image"].affine.numpy())) == "RAS"
        back = invert(sample["image"] * sample["facts"]["tissue_median"], sample, nearest=False)
        assert back.shape == (1, 7, 12, 9)
        np.testing.assert_allclose(back[0], stored, rtol=1e-6)
        numbers = torch.arange(7 * 12 * 9).reshape(sample["image"].shape).to(torch.int32)
        assert invert(numbers, sample, nearest=True).dtype == np.int32
    assert len(seen) == 48


@pytest.mark.usefixtures("no_flux")
def test_resampled_volumes_invert_to_the_input_over_all_48_orientations(tmp_path):
    i, j, k = np.indices((13, 16, 11))
    stored = (100 + 2 * i + j - 1.5 * k).astype(np.float32)  # linear, so that interpolation is exact away from the edge
    labels = (i + j + k > 18).astype(np.float32)
    inner = (slice(2, -2),) * 3
    transforms = angiogram_transforms(brain_mask="none", spacing=(0.5, 0.6, 0.7))
    for codes in every_orientation():
        case = Case(codes, write(tmp_path / f"{codes}.nii", stored, affine_of(codes)), codes)
        sample = prepare_case(case, transforms)
        np.testing.assert_allclose(voxel_spacing(sample["image"]), (0.5, 0.6, 0.7), rtol=1e-3)
        back = invert(sample["image"] * sample["facts"]["tissue_median"], sample, nearest=False)
        assert back.shape == (1, 13, 16, 11)
        np.testing.assert_allclose(back[0][inner], stored[inner], atol=0.02)
        fine = prepare_case(Case(codes, write(tmp_path / f"{codes}.nii", labels, affine_of(codes)), codes), transforms)
        drawn = (fine["image"] * fine["facts"]["tissue_median"]).round()
        there_and_back = invert(drawn, fine, nearest=True)[0]
        assert set(np.unique(there_and_back)) == {0, 1}
        assert np.mean(there_and_back[inner] == labels[inner]) > 0.97


def test_a_sample_inverts_after_pickling_as_a_cache_does(case):
    sample = pickle.loads(
        pickle.dumps(prepare_case(case, pickle.loads(pickle.dumps(angiogram_transforms(brain_mask="none")))))
    )
    back = invert(sample["region"] * 2, sample, nearest=True)
    assert back.dtype == np.uint8
    assert (back == 2).all()


def test_inverting_leaves_the_sample_able_to_invert_again(case):
    sample = prepare_case(case, angiogram_transforms(brain_mask="none", spacing=(1, 1, 1)))
    first = invert(sample["image"], sample, nearest=False)
    np.testing.assert_array_equal(invert(sample["image"], sample, nearest=False), first)
    assert len(sample["image"].applied_operations) == 2


def test_inverting_refuses_values_on_another_grid(case):
    sample = prepare_case(case, angiogram_transforms(brain_mask="none"))
    with pytest.raises(ValueError, match="prepared shape"):
        invert(sample["image"][:, 1:], sample, nearest=True)


def test_a_sample_holds_what_the_next_stages_need(case):
    sample = prepare_case(case, angiogram_transforms(brain_mask="none"))
    assert set(sample) == {"image", "region", "salience", "tubularity", "case_id", "patient", "facts"}
    for key, dtype in (("image", torch.float32), ("region", torch.uint8), ("salience", torch.float32)):
        assert isinstance(sample[key], MetaTensor)
        assert sample[key].dtype == dtype
        assert sample[key].shape == (1, 29, 34, 23)
        torch.testing.assert_close(sample[key].affine, sample["image"].affine)
    assert sample["facts"]["region_source"] == "none"
    assert sample["facts"]["region_ml"] == pytest.approx(29 * 34 * 23 * np.prod(SPACING) / 1000, abs=0.1)
    assert sample["facts"]["tissue_median"] == pytest.approx(100, rel=0.05)
    assert {"flux_scale", "contrast_scale", "flux_alarm", "n4"} <= set(sample["facts"])
    assert float(sample["image"].median()) == pytest.approx(1, rel=0.05)
    # the first tube runs along k through (14, 16), which stands at the mirrored place in RAS
    assert float(sample["salience"][0, 28 - 14, 33 - 16, 4]) > 0.5
    assert float(sample["salience"][0, 25, 5, 4]) < 0.2


@pytest.mark.parametrize("change", [lambda v: v * 7.5, lambda v: v - 150, lambda v: v - 20_000, lambda v: v * 3 - 400])
def test_a_scale_or_a_negative_offset_of_the_grey_values_changes_nothing(tmp_path, change):
    transforms = angiogram_transforms(brain_mask="none")
    stored = tissue().astype(np.float64)
    stored -= np.percentile(stored, 2)  # a background level of exactly 0
    stored[stored < 0] = 0
    plain = prepare_case(Case("p", write(tmp_path / "p.nii", stored), "p"), transforms)
    changed = prepare_case(Case("q", write(tmp_path / "q.nii", change(stored)), "q"), transforms)
    for key in ("image", "salience", "tubularity"):
        np.testing.assert_allclose(changed[key].numpy(), plain[key].numpy(), atol=2e-3)


def test_all_negative_mr_values_are_read(tmp_path):
    stored = tissue() - 5000
    assert stored.max() < 0
    sample = prepare_case(Case("n", write(tmp_path / "n.nii", stored), "n"), angiogram_transforms(brain_mask="none"))
    assert sample["image"].min() == 0
    assert float(sample["image"].median()) == pytest.approx(1, rel=0.05)


def test_ct_values_are_one_error_line_with_the_file_and_a_way_out(tmp_path):
    stored = tissue() - 60
    stored[:6] = -1000
    case = Case("ct", write(tmp_path / "ct.nii", stored), "ct")
    with pytest.raises(MedsegError, match=r"ct\.nii must be an MR image, got CT values.*; .*config cta") as caught:
        prepare_case(case, angiogram_transforms())
    assert "\n" not in str(caught.value)


def brain_of(shape=(29, 34, 23)):
    mask = np.zeros(shape, np.uint8)
    mask[5:25, 6:30, 3:20] = 1
    return mask


def test_auto_takes_the_given_mask_and_the_region_follows_the_axes(case, tmp_path, caplog):
    mask = write(tmp_path / "a_mask.nii.gz", brain_of())
    caplog.set_level(logging.INFO)
    sample = prepare_case(Case("a", case.image, "a", mask=mask), angiogram_transforms())
    assert sample["facts"]["region_source"] == "given"
    np.testing.assert_array_equal(invert(sample["region"], sample, nearest=True)[0], brain_of())
    assert not sample["salience"][sample["region"] == 0].any()
    assert "a: region by given, 8 ml of 23 ml" in caplog.text


def test_a_case_can_ask_for_another_region_than_the_config(case, tmp_path):
    mask = write(tmp_path / "a_mask.nii.gz", brain_of())
    asked = Case("a", case.image, "a", mask=mask, mask_mode="none")
    assert prepare_case(asked, angiogram_transforms(brain_mask="given"))["facts"]["region_source"] == "none"


def test_given_without_a_mask_names_the_file_to_add(case):
    with pytest.raises(MedsegError, match=r"a_img\.nii\.gz must have a brain mask.*a_mask\.nii\.gz"):
        prepare_case(case, angiogram_transforms(brain_mask="given"))


def test_a_mask_that_looks_like_a_vessel_label_is_refused_with_a_hint(case, tmp_path):
    tubes = (tissue() > 200).astype(np.uint8)
    assert 0 < tubes.mean() < 0.05
    asked = Case("a", case.image, "a", mask=write(tmp_path / "a_mask.nii", tubes))
    with pytest.raises(MedsegError, match=r"a_mask\.nii must fill at least 5%.*vessel label.*_label"):
        prepare_case(asked, angiogram_transforms())


@pytest.mark.parametrize("how", ["shape", "shifted"])
def test_a_mask_on_another_grid_is_refused(case, tmp_path, how):
    affine = affine_of("LPS")
    affine[0, 3] += 0.4 * (how == "shifted")
    mask = write(tmp_path / "a_mask.nii", brain_of((29, 34, 22 if how == "shape" else 23)), affine)
    with pytest.raises(MedsegError, match=r"a_mask\.nii"):
        prepare_case(Case("a", case.image, "a", mask=mask), angiogram_transforms())


def test_a_box_without_a_brain_falls_back_to_the_whole_volume_and_says_so(case, caplog):
    caplog.set_level(logging.INFO)
    sample = prepare_case(case, angiogram_transforms())
    assert sample["facts"]["region_source"].startswith("whole volume")
    assert sample["region"].all()
    assert "a: region by whole volume (builtin found no brain)" in caplog.text


def test_the_region_of_a_stripped_image_is_what_was_left(tmp_path):
    stored = tissue() * brain_of()
    case = Case("s", write(tmp_path / "s.nii", stored), "s")
    sample = prepare_case(case, angiogram_transforms())
    assert sample["facts"]["region_source"] == "stripped image"
    np.testing.assert_array_equal(invert(sample["region"], sample, nearest=True)[0], stored != 0)


def test_a_stripped_image_with_standard_scores_keeps_its_background_dark(tmp_path):
    inside = brain_of() > 0
    scores = tissue()
    scores = np.where(inside, (scores - scores[inside].mean()) / scores[inside].std(), 0)
    sample = prepare_case(Case("z", write(tmp_path / "z.nii", scores), "z"), angiogram_transforms())
    assert sample["facts"]["region_source"] == "stripped image"
    assert not sample["image"][sample["region"] == 0].any()


def test_n4_leaves_less_shading_and_says_that_it_ran(tmp_path):
    i = np.indices((32, 32, 16))[0]
    rng = np.random.default_rng(3)
    stored = (100 + rng.normal(0, 2, i.shape)) * np.exp(0.5 * np.sin(i / 14))
    stored[:, :8] = 1
    case = Case("b", write(tmp_path / "b.nii", stored.astype(np.float32), affine_of("RAS")), "b")

    def shading(sample):
        tissue = sample["image"][0, :, 8:].numpy()
        return tissue.std() / tissue.mean()

    shaded, flat = (
        prepare_case(case, angiogram_transforms(brain_mask="none", n4=n4, n4_shrink=2)) for n4 in (False, True)
    )
    assert shading(flat) < 0.3 * shading(shaded)
    assert (shaded["facts"]["n4"], flat["facts"]["n4"]) == (False, True)


def test_errors_name_the_case_once_and_foreign_errors_stay_what_they_are(tmp_path, monkeypatch):
    case = Case("gone", tmp_path / "scan.nii", "gone")
    with pytest.raises(MedsegError, match=r"^case gone: .*scan\.nii") as caught:
        prepare_case(case, angiogram_transforms())
    assert str(caught.value).count("gone") == 1

    def broken(*_, **__):
        raise ZeroDivisionError

    monkeypatch.setattr(steps, "read_image", broken)
    with pytest.raises(RuntimeError):
        prepare_case(case, angiogram_transforms())


def test_an_unknown_brain_mask_is_refused():
    with pytest.raises(MedsegError, match="auto, given, builtin"):
        angiogram_transforms(brain_mask="magic")


def test_no_parameter_on_this_way_can_carry_a_reference():
    assert not {"label", "labels", "reference"} & set(Case.__dataclass_fields__)
    assert Path(chain.__file__).read_text(encoding="utf-8").count("find_references") == 0
