"""This file compares the method with the reference program's numbers in tests/golden.

`python tests/stego/test_golden.py` prints the table: file, type, largest error, tolerance. An error is
max|a - b| / max|b| of an array.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from medseg.patches.pairs import nearest_patches
from medseg.stego import losses
from medseg.stego.head import Decoder, Head
from medseg.stego.losses import SampledPairs, Terms
from medseg.stego.model import ClusterModel
from medseg.stego.probes import Probes, assign, cluster_loss, cosines
from medseg.stego.sampling import Draws, pixel_coordinates, salient_pixels
from medseg.stego.settings import settings_from_preset
from medseg.stego.step import Parts, build_optimiser, compute_losses

GOLDEN = Path(__file__).parent.parent / "golden"
Errors = Iterator[tuple[str, float]]
HEAD_NAMES = {
    "cluster1.0.weight": "linear.weight",
    "cluster1.0.bias": "linear.bias",
    "cluster2.0.weight": "nonlinear.0.weight",
    "cluster2.0.bias": "nonlinear.0.bias",
    "cluster2.2.weight": "nonlinear.2.weight",
    "cluster2.2.bias": "nonlinear.2.bias",
}


class Golden:
    """Arrays of one file as tensors of one type."""

    def __init__(self, name: str, dtype: torch.dtype, prefix: str = "") -> None:
        self.arrays, self.dtype, self.prefix = np.load(GOLDEN / f"{name}.npz"), dtype, prefix

    def __getitem__(self, key: str) -> Any:
        array = self.arrays[self.prefix + key]
        if array.dtype.kind == "U":
            return json.loads(str(array))
        return torch.from_numpy(array).to(self.dtype) if array.dtype.kind == "f" else torch.from_numpy(array)

    def __contains__(self, key: str) -> bool:
        return self.prefix + key in self.arrays.files

    def under(self, folder: str) -> dict[str, Tensor]:
        start = self.prefix + folder
        names = [name for name in self.arrays.files if name.startswith(start)]
        return {name[len(start) :]: self[name[len(self.prefix) :]] for name in names}

    def case(self, prefix: str) -> Golden:
        other = object.__new__(Golden)
        other.arrays, other.dtype, other.prefix = self.arrays, self.dtype, self.prefix + prefix
        return other

    @property
    def cases(self) -> list[str]:
        return list(dict.fromkeys(name.split("/")[0] for name in self.arrays.files if "/" in name))


def error(found: Any, wanted: Any) -> float:
    found, wanted = torch.as_tensor(found).detach().double(), torch.as_tensor(wanted).double()
    assert found.shape == wanted.shape, (found.shape, wanted.shape)
    return float((found - wanted).abs().max() / wanted.abs().max().clamp_min(1e-300))


def head_state(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {HEAD_NAMES[name.removeprefix("net.")]: value for name, value in state.items() if "cluster" in name}


def tiny_vit(image: Tensor, weights: dict[str, Tensor], heads: int = 6) -> Tensor:
    """Features of the reference's ViT (depth 2, width 48, patch 8), from the equations."""
    tokens = functional.conv2d(image, weights["patch_embed.proj.weight"], weights["patch_embed.proj.bias"], stride=8)
    count, _, rows, columns = tokens.shape
    tokens = torch.cat((weights["cls_token"].expand(count, -1, -1), tokens.flatten(2).mT), dim=1)
    tokens = tokens + tiny_positions(weights["pos_embed"], rows, columns)

    def norm(values: Tensor, name: str) -> Tensor:
        return functional.layer_norm(
            values, values.shape[-1:], weights[f"{name}.weight"], weights[f"{name}.bias"], 1e-6
        )

    def linear(values: Tensor, name: str) -> Tensor:
        return values @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]

    for block in ("blocks.0", "blocks.1"):
        qkv = linear(norm(tokens, f"{block}.norm1"), f"{block}.attn.qkv")
        q, k, v = qkv.unflatten(2, (3, heads, -1)).permute(2, 0, 3, 1, 4)
        attention = (q @ k.mT / math.sqrt(q.shape[-1])).softmax(-1)
        tokens = tokens + linear((attention @ v).transpose(1, 2).flatten(2), f"{block}.attn.proj")
        hidden = functional.gelu(linear(norm(tokens, f"{block}.norm2"), f"{block}.mlp.fc1"))
        tokens = tokens + linear(hidden, f"{block}.mlp.fc2")
    return norm(tokens, "norm")[:, 1:].mT.unflatten(2, (rows, columns))


def tiny_positions(table: Tensor, rows: int, columns: int) -> Tensor:
    if (rows, columns) == (4, 4):
        return table
    grid = table[:, 1:].mT.unflatten(2, (4, 4))
    scale = ((rows + 0.1) / 4, (columns + 0.1) / 4)
    grid = functional.interpolate(grid, scale_factor=scale, mode="bicubic", recompute_scale_factor=False)
    return torch.cat((table[:, :1], grid.flatten(2).mT), dim=1)


def check_ops(dtype: torch.dtype) -> Errors:
    for name in ("c0/", "c1/"):
        golden = Golden("ops", dtype, name)
        t = golden["in_t"]
        yield "norm", error(losses.normalise(t), golden["out_norm"])
        yield "sample", error(losses.sample(t, golden["in_coords"]), golden["out_sample"])
        a, b = golden["in_a"], golden["in_b"]
        yield "corr", error(losses.correlation(a, b), golden["out_corr"])
        normed = losses.correlation(losses.normalise(a), losses.normalise(b))
        yield "corr_normed", error(normed, golden["out_corr_normed"])
        source = t if golden["out_resize11"].shape[:2] == t.shape[:2] else a
        yield "resize", error(losses.resize(source, (11, 11)), golden["out_resize11"])


def check_corr_helper(dtype: torch.dtype) -> Errors:
    golden = Golden("corr_helper", dtype)
    for case in golden.cases:
        pointwise, zero_clamp, stabilise, shift = (int(part[-1]) for part in case.split("_"))
        c1, c2 = golden["in_c1"].requires_grad_(), golden["in_c2"].requires_grad_()
        wanted = losses.feature_correspondence(golden["in_f1"], golden["in_f2"], pointwise=bool(pointwise))
        found = losses.correlation(losses.normalise(c1), losses.normalise(c2))
        loss = losses.pair_loss(
            wanted,
            found,
            float(golden["in_shifts"][shift]),
            zero_clamp=bool(zero_clamp),
            stabilise=bool(stabilise),
        )
        loss.mean().backward()
        one = golden.case(case + "/")
        yield "cd", error(found, golden["out_cd"])
        yield "loss", error(loss, one["out_loss"])
        yield "loss_mean", error(loss.mean(), one["out_loss_mean"])
        yield "grad_c1", error(c1.grad, one["out_grad_c1"])
        yield "grad_c2", error(c2.grad, one["out_grad_c2"])


def salient_places(golden: Golden, which: str, mask: Tensor) -> Tensor:
    """The reference's salient coordinates: our pixels, its index / H scaling."""
    count, size = golden["in_rand_mask"].shape[0], golden["in_rand_mask"].shape[1:]
    picks = torch.zeros((count, *size), dtype=torch.float64)
    for image in range(count):
        draws = golden[f"in_randint_{which}_{image}"]
        if draws.ndim == 2:  # an empty mask: rows and columns of any pixel
            draws, total = draws[:, 0] * mask.shape[2] + draws[:, 1], mask[image].numel()
        else:
            total = int((mask[image] > 0).sum())
        picks[image] = ((draws + 0.5) / total).reshape(size)
    rows, columns = salient_pixels(mask > 0, picks)
    return torch.stack((columns, rows), dim=-1).to(golden.dtype) / mask.shape[1] * 2 - 1


def check_corr_loss(dtype: torch.dtype) -> Errors:
    whole = Golden("corr_loss", dtype)
    for case in whole.cases:
        golden = whole.case(case + "/")
        config = golden["cfg_json"]
        coords1, coords2 = golden["in_rand_coords1"] * 2 - 1, golden["in_rand_coords2"] * 2 - 1
        if config["use_salience"]:
            places1 = salient_places(golden, "anchor", golden["in_salience"])
            places2 = salient_places(golden, "pos", golden["in_salience_pos"])
            yield "coords1_nonzero", error(places1, golden["out_coords1_nonzero"])
            yield "coords2_nonzero", error(places2, golden["out_coords2_nonzero"])
            salient = (golden["in_rand_mask"] > 0.1)[..., None]
            coords1, coords2 = torch.where(salient, places1, coords1), torch.where(salient, places2, coords2)
            yield "coords1", error(coords1, golden["out_coords1"])
            yield "coords2", error(coords2, golden["out_coords2"])
        code, code_pos = golden["in_code"].requires_grad_(), golden["in_code_pos"].requires_grad_()
        feats, feats_pos = golden["in_feats"], golden["in_feats_pos"]
        pairs = SampledPairs(
            (losses.sample(feats, coords1), losses.sample(code, coords1)),
            (losses.sample(feats_pos, coords2), losses.sample(code_pos, coords2)),
            tuple((losses.sample(feats[p], coords2), losses.sample(code[p], coords2)) for p in golden["in_perms"]),
        )
        found = losses.correlation_loss(
            pairs,
            Terms(config["neg_inter_weight"], config["pos_inter_weight"], config["pos_intra_weight"]),
            Terms(config["neg_inter_shift"], config["pos_inter_shift"], config["pos_intra_shift"]),
            pointwise=config["pointwise"],
            zero_clamp=config["zero_clamp"],
            stabilise=config["stabalize"],
        )
        found.total.backward()
        yield "total", error(found.total, golden["out_total"])
        for ours, theirs in (("self", "self"), ("knn", "knn"), ("random", "rand")):
            yield f"loss_{theirs}", error(found.losses[ours], golden[f"out_loss_{theirs}"])
            if f"out_cd_{theirs}" in golden:
                yield f"cd_{theirs}", error(found.code_correspondences[ours], golden[f"out_cd_{theirs}"])
        yield "grad_code", error(code.grad, golden["out_grad_code"])
        yield "grad_code_pos", error(code_pos.grad, golden["out_grad_code_pos"])


def check_crf_loss(dtype: torch.dtype) -> Errors:
    for case in ("default/", "alt/"):
        golden = Golden("crf_loss", dtype, case)
        config = golden["cfg_json"]
        kernel = {name: config[name] for name in ("alpha", "beta", "gamma", "w1", "w2", "shift")}
        code = golden["in_code"].requires_grad_()
        normed = losses.normalise(code)
        normed.retain_grad()
        loss = losses.contrastive_crf_loss(golden["in_guidance"], normed, golden["in_coords"], **kernel)
        loss.mean().backward()
        yield "normed", error(normed, golden["out_clusters_normed"])
        yield "loss_map", error(loss, golden["out_loss_map"])
        yield "loss_mean", error(loss.mean(), golden["out_loss_mean"])
        yield "grad_clusters", error(normed.grad, golden["out_grad_clusters"])
        yield "grad_code", error(code.grad, golden["out_grad_code"])


def check_cluster_lookup(dtype: torch.dtype) -> Errors:
    golden = Golden("cluster_lookup", dtype)
    for case, alpha in (("alpha_None", None), ("alpha_2", 2.0), ("alpha_5.0", 5.0)):
        x, clusters = golden["in_x"].requires_grad_(), golden["in_clusters"].requires_grad_()
        cosine = cosines(x, clusters)
        loss = cluster_loss(cosine, alpha)
        loss.backward()
        yield "loss", error(loss, golden[f"{case}/out_loss"])
        yield "probs", error(assign(cosine, alpha), golden[f"{case}/out_probs"])
        yield "grad_clusters", error(clusters.grad, golden[f"{case}/out_grad_clusters"])
        yield "grad_x", error(x.grad, golden[f"{case}/out_grad_x"])
        if alpha is not None:
            model = ClusterModel("stego", None, golden["in_clusters"], "cosine", alpha)
            yield "log_probs", error(model.log_probabilities(golden["in_x"]), golden[f"{case}/out_log_probs"])


def check_head(dtype: torch.dtype) -> Errors:
    whole = Golden("head", dtype)
    features = tiny_vit(whole["in_img"], Golden("vit_tiny", dtype).under("sd/"))
    for case in ("linear", "nonlinear", "None"):
        golden = whole.case(case + "/")
        head = Head(48, 10, "none" if case == "None" else case).to(dtype)  # type: ignore[arg-type]
        if case != "None":
            names = {name for name, _ in head.named_parameters()}
            state = head_state(golden.under("sd/"))
            head.load_state_dict({name: value for name, value in state.items() if name in names})
        codes, signal = head(features)
        yield "feats", error(signal, golden["out_feats"])
        yield "code", error(codes, golden["out_code"])
        if case != "None":
            codes.backward(golden["in_upstream_grad"])
            for name, gradient in golden.under("out_grad/").items():
                yield "grad", error(head.get_parameter(HEAD_NAMES[name]).grad, gradient)
    head = Head(48, 10).to(dtype)
    head.load_state_dict(head_state(whole.under("nonlinear/sd/")))
    codes, signal = head(features, whole["dropout/in_masks"] / 0.9)
    yield "dropout feats", error(signal, whole["dropout/out_feats"])
    yield "dropout code", error(codes, whole["dropout/out_code"])


def check_decoder(dtype: torch.dtype) -> Errors:
    golden = Golden("decoder", dtype)
    decoder = Decoder(8, 20).to(dtype)
    state = golden.under("conv1x1_used_in_training/sd/")
    decoder.load_state_dict({f"linear.{name}": value for name, value in state.items()})
    code = golden["in_code"].requires_grad_()
    loss = losses.cosine_loss(decoder(code), golden["in_feats"])
    loss.backward()
    case = golden.case("conv1x1_used_in_training/")
    yield "rec", error(decoder(code), case["out_rec"])
    yield "loss", error(loss, case["out_loss"])
    yield "grad_code", error(code.grad, case["out_grad_code"])
    for name, gradient in case.under("out_grad/").items():
        yield "grad", error(decoder.linear.get_parameter(name).grad, gradient)


def check_aug_alignment(dtype: torch.dtype) -> Errors:
    for case in ("identity/", "hflip/", "vflip/", "crop/"):
        golden = Golden("aug_alignment", dtype, case)
        coords = golden["in_coord_row_col"].flip(-1)
        code, augmented = golden["in_code"], golden["in_code_aug"]
        yield "sampled", error(losses.sample_at(code, coords), golden["fixed_sampled"])
        yield "loss", error(losses.augmentation_loss(code, augmented, coords), golden["fixed_loss"])


def check_knn(dtype: torch.dtype) -> Errors:
    golden = Golden("knn", dtype)
    means = functional.normalize(golden["in_featmaps"].mean((2, 3)), dim=1)
    yield "mean_normed", error(means, golden["out_mean_normed"])
    count, wanted = len(means), golden["out_nns"][:, 1:]
    names = [str(patch) for patch in range(count)]
    found = torch.from_numpy(
        nearest_patches(means, patients=names, scans=names, slices=np.zeros(count, int), neighbours=29, chunk=10)
    )
    similarity = (means @ means.T).double()
    yield "similarities", error(similarity.gather(1, found), similarity.gather(1, wanted))
    if dtype == torch.float64:
        yield "order", float((found != wanted).any())


def check_train_steps(dtype: torch.dtype) -> Errors:
    vit = Golden("vit_tiny", dtype).under("sd/")
    for case in ("plain", "rec_crf", "unlabelled"):
        yield from check_training(Golden("train_steps", dtype, case + "/"), vit, dtype)


def check_training(golden: Golden, vit: dict[str, Tensor], dtype: torch.dtype) -> Errors:
    config = golden["cfg_json"]
    kernel = {f"crf_{name}": config[name] for name in ("alpha", "beta", "gamma", "w1", "w2", "shift")}
    settings = settings_from_preset(
        "default",
        code_dim=config["dim"],
        rec_weight=config["rec_weight"],
        crf_weight=config["crf_weight"],
        dropout=0.0,
        learning_rate=config["lr"],
        probe_learning_rate=config["probe_lr"],
        clusters=config["n_classes"],
        **kernel,
    )
    start = golden.under("sd_start/")
    head, probes, decoder = Head(48, 8), Probes(8, config["n_classes"], config["n_classes"]), Decoder(8, 48)
    names = {**{f"net.{theirs}": f"head.{ours}" for theirs, ours in HEAD_NAMES.items()}}
    names |= {"cluster_probe.clusters": "probes.prototypes"}
    names |= {f"linear_probe.{part}": f"probes.linear.{part}" for part in ("weight", "bias")}
    names |= {f"decoder.{part}": f"decoder.linear.{part}" for part in ("weight", "bias")}
    model = nn.ModuleDict({"head": head, "probes": probes, "decoder": decoder}).to(dtype)
    model.load_state_dict({names[name]: value for name, value in start.items()})
    parts = Parts(head, probes, decoder if config["rec_weight"] > 0 else None)
    optimiser = build_optimiser(parts, settings)
    shifts = Terms(config["neg_inter_shift"], config["pos_inter_shift"], config["pos_intra_shift"])
    batch = {
        "features": tiny_vit(golden["in_img"], vit),
        "positive_features": tiny_vit(golden["in_img_pos"], vit),
        "image": golden["in_img"],
        "labels": golden["in_label"].long(),
    }
    for step in range(3):
        case = golden.case(f"step{step}/")
        coords = torch.stack((case["in_coords1"], case["in_coords2"]))
        draws = Draws(
            coords if float(coords.min()) < 0 else coords * 2 - 1,
            coords.new_zeros(coords.shape[:-1]),
            torch.zeros(coords.shape[1:-1], dtype=torch.bool),
            case["in_perms"],
            None,
            case["in_crf_coords"] if "in_crf_coords" in case else torch.empty((2, 0), dtype=torch.int64),
        )
        found = compute_losses(parts, batch, draws, settings, shifts)
        optimiser.zero_grad()
        found.total.backward()
        for name, wanted in case.under("out_").items():
            kind, _, part = name.partition("_")
            if kind in ("loss", "cd"):
                yield f"{kind}/{part}", error(found.scalars[f"{kind}/{part}"], wanted)
            else:
                parameter = model.get_parameter(names[name.removeprefix("grad/")])
                yield name, float((parameter.grad - wanted).abs().max() / wanted.abs().max().clamp_min(1e-12))
        optimiser.step()
    for name, wanted in golden.under("out_sd_after3/").items():
        yield f"after3 {name}", error(model.get_parameter(names[name]), wanted)


def check_eval_path(dtype: torch.dtype) -> Errors:
    golden = Golden("eval_path", dtype)
    vit = Golden("vit_tiny", dtype).under("sd/")
    head, probes = Head(48, 8).to(dtype), Probes(8, 4, 4).to(dtype)
    head.load_state_dict(head_state(golden.under("sd/net.")))
    state = golden.under("sd/")
    probes.load_state_dict(
        {
            "prototypes": state["cluster_probe.clusters"],
            "linear.weight": state["linear_probe.weight"],
            "linear.bias": state["linear_probe.bias"],
        }
    )
    image = golden["in_img"]
    with torch.no_grad():
        codes = (head(tiny_vit(image, vit))[0] + head(tiny_vit(image.flip(-1), vit))[0].flip(-1)) / 2
        yield "code", error(codes, golden["out_code"])
        large = losses.resize(codes, (40, 40))
        assert probes.linear is not None
        yield "linear", error(probes.linear(large).log_softmax(1), golden["out_linear_log_probs"])
    found = ClusterModel("stego", None, probes.prototypes, "cosine", 2.0).log_probabilities(large)
    yield "cluster", error(found, golden["out_cluster_log_probs"])
    yield "argmax", float((found.argmax(1) != golden["out_cluster_argmax"]).double().mean())


CHECKS: dict[str, tuple[Callable[[torch.dtype], Errors], float]] = {
    "ops": (check_ops, 1e-5),
    "corr_helper": (check_corr_helper, 1e-5),
    "corr_loss": (check_corr_loss, 2e-5),
    "crf_loss": (check_crf_loss, 1e-5),
    "cluster_lookup": (check_cluster_lookup, 1e-5),
    "head": (check_head, 1e-5),
    "decoder": (check_decoder, 1e-5),
    "aug_alignment": (check_aug_alignment, 1e-5),
    "knn": (check_knn, 1e-5),
    "train_steps": (check_train_steps, 2e-5),
    "eval_path": (check_eval_path, 1e-5),
}


def largest(name: str, dtype: torch.dtype) -> tuple[str, float]:
    return max(CHECKS[name][0](dtype), key=lambda found: found[1] if found[1] == found[1] else math.inf)


@pytest.mark.parametrize("name", CHECKS)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["float64", "float32"])
def test_numbers_equal_the_reference_program(name: str, dtype: torch.dtype) -> None:
    tolerance = 1e-6 if dtype == torch.float64 else CHECKS[name][1]
    what, value = largest(name, dtype)
    assert value <= tolerance, f"{name}: {what} is off by {value:.2e}"


def test_exact_salient_coordinates_reach_the_last_pixel_of_an_oblong_mask() -> None:
    rows, columns = torch.tensor([0, 3]), torch.tensor([0, 8])
    assert pixel_coordinates(rows, columns, (4, 9)).tolist() == [[-1, -1], [1, 1]]


if __name__ == "__main__":
    print(f"{'file':16}{'type':9}{'largest error':>14}  tolerance  array")
    for check in CHECKS:
        for kind in (torch.float64, torch.float32):
            array, worst = largest(check, kind)
            limit = 1e-6 if kind == torch.float64 else CHECKS[check][1]
            print(f"{check:16}{str(kind).removeprefix('torch.'):9}{worst:14.1e}  {limit:9.0e}  {array}")
