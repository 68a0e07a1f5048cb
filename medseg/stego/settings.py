"""This file holds the numbers of a STEGO run as one frozen record, and builds it from a preset by name."""

from __future__ import annotations

import dataclasses
import difflib
from dataclasses import dataclass
from typing import Any, Literal

from medseg.errors import MedsegError
from medseg.stego.head import Projection
from medseg.stego.losses import Terms
from medseg.stego.presets import PRESETS, REMOVED_OPTIONS
from medseg.stego.sampling import Sampling


@dataclass(frozen=True)
class StegoSettings:
    """The numbers of a STEGO run; weights and shifts have no default, they come from a preset.

    Attributes:
        random_weight, knn_weight, self_weight: weights of the three terms.
        random_shift, knn_shift, self_shift: their shifts; with `shifts: auto` they are measured instead.
        shifts: `preset`, or `auto`: the quantiles below of the feature correspondences, measured before training.
        random_quantile, knn_quantile, self_quantile: see `shifts`.
        steps: training steps, one batch each.
        epochs: passes over the patches; where given it sets the number of steps.
        batch: patches in a batch, over all processes.
        learning_rate, probe_learning_rate: Adam's, for the head (with the decoder) and for each probe.
        reset_probe_steps: the step at which probes and their optimiser states start anew; None: never.
        code_dim: channels of the codes.
        projection: the head's branches, or `pyramid`, see `medseg.stego.head`.
        granularity: levels of a pyramid.
        dropout: channel dropout of the features; a pyramid has none.
        clusters, extra_clusters: prototypes are learnt for the sum of both.
        neighbours: the positive is drawn among so many nearest patches.
        negatives: draws of other patches of the batch.
        feature_samples: points along each side of the point grid.
        sampling: `maps` as published: the head runs on whole maps, the cluster probe sees every pixel. `corners`: the
            same correlation loss, but the head runs only on the pixels the points touch and the probe sees the points.
            `pixels`: like `corners`, with each point moved to its nearest pixel.
        salient_share: share of the points that come from the most salient pixels; 0: all uniform.
        salient_top: share of all pixels of the training patches that counts as salient.
        pointwise, zero_clamp, stabilise: see `medseg.stego.losses`.
        correspondence_weight, rec_weight, aug_alignment_weight, crf_weight: weights of the parts of the loss.
        crf_alpha, crf_beta, crf_gamma, crf_w1, crf_w2, crf_shift, crf_samples: kernel and pixels of the CRF loss.
        cluster_fit: what makes the clusters of the codes: `probe` (prototypes learnt online) or `kmeans` afterwards.
        cluster_alpha: sharpness of the probabilities of cosine clusters, `softmax(alpha cos)`.
        code_metric, feature_metric: distance of k-means on codes and on features.
        kmeans_starts: starts of k-means; the best one is kept.
        fit_points: points on which the clusterings are fitted.
        fit_salient_share: share of them that comes from the most salient pixels.
        checkpoint_every, log_every, picture_every: intervals in steps.
        keep_every: interval in steps, or `epoch`, of the weights that are kept for choosing among them; None: only the
            last ones are.
        workers: processes that read patches; 0 reads in the training process.
    """

    random_weight: float
    knn_weight: float
    self_weight: float
    random_shift: float
    knn_shift: float
    self_shift: float
    shifts: Literal["preset", "auto"] = "preset"
    random_quantile: float = 0.97
    knn_quantile: float = 0.8
    self_quantile: float = 0.8
    steps: int = 5000
    epochs: int | None = None
    batch: int = 16
    learning_rate: float = 5e-4
    probe_learning_rate: float = 5e-3
    reset_probe_steps: int | None = None
    code_dim: int = 70
    projection: Projection = "nonlinear"
    granularity: int = 4
    dropout: float = 0.1
    clusters: int = 5
    extra_clusters: int = 0
    neighbours: int = 7
    negatives: int = 5
    feature_samples: int = 11
    sampling: Sampling = "maps"
    salient_share: float = 0.0
    salient_top: float = 0.05
    pointwise: bool = True
    zero_clamp: bool = True
    stabilise: bool = False
    correspondence_weight: float = 1.0
    rec_weight: float = 0.0
    aug_alignment_weight: float = 0.0
    crf_weight: float = 0.0
    crf_alpha: float = 0.5
    crf_beta: float = 0.15
    crf_gamma: float = 0.05
    crf_w1: float = 10.0
    crf_w2: float = 3.0
    crf_shift: float = 0.0
    crf_samples: int = 1000
    cluster_fit: Literal["probe", "kmeans"] = "probe"
    cluster_alpha: float = 2.0
    code_metric: Literal["cosine", "euclidean"] = "cosine"
    feature_metric: Literal["cosine", "euclidean"] = "euclidean"
    kmeans_starts: int = 5
    fit_points: int = 16000
    fit_salient_share: float = 0.5
    checkpoint_every: int = 100
    log_every: int = 10
    picture_every: int = 500
    keep_every: int | Literal["epoch"] | None = None
    workers: int = 0

    def __post_init__(self) -> None:
        whole_maps = {"rec_weight": self.rec_weight, "crf_weight": self.crf_weight}
        whole_maps["aug_alignment_weight"] = self.aug_alignment_weight
        for name, weight in whole_maps.items():
            if weight > 0 and self.sampling != "maps":
                raise MedsegError(
                    f"stego.{name} must be 0 with stego.sampling {self.sampling}, got {weight}; "
                    "this part of the loss needs whole maps: set stego.sampling to maps"
                )
        if self.projection == "pyramid":
            self._require_what_a_pyramid_can()
        at_least = {"batch": 1, "clusters": 2, "neighbours": 1, "feature_samples": 1, "code_dim": 1, "steps": 0}
        for name, least in at_least.items():
            if getattr(self, name) < least:
                raise MedsegError(
                    f"stego.{name} must be at least {least}, got {getattr(self, name)}; raise it in the config"
                )

    def _require_what_a_pyramid_can(self) -> None:
        wanted = {"granularity": (self.granularity in (1, 2, 3, 4), "1 to 4", "its levels are counted so")}
        wanted["sampling"] = (self.sampling == "maps", "maps", "its codes come from whole maps only")
        wanted["rec_weight"] = (self.rec_weight == 0, "0", "its codes and its features lie on different grids")
        for name, (fits, allowed, reason) in wanted.items():
            if not fits:
                raise MedsegError(
                    f"stego.{name} must be {allowed} with stego.projection pyramid, got {getattr(self, name)}; {reason}"
                )

    @property
    def term_weights(self) -> Terms:
        """Weights of the three terms."""
        return Terms(self.random_weight, self.knn_weight, self.self_weight)

    @property
    def term_shifts(self) -> Terms:
        """Shifts of the three terms as the preset gives them."""
        return Terms(self.random_shift, self.knn_shift, self.self_shift)

    @property
    def prototypes(self) -> int:
        """Number of prototypes, extra clusters included."""
        return self.clusters + self.extra_clusters

    def steps_for(self, patches: int) -> int:
        """Training steps on a set of so many patches."""
        if self.epochs is None:
            return self.steps
        return self.epochs * self.steps_of_an_epoch(patches)

    def steps_of_an_epoch(self, patches: int) -> int:
        """Training steps of one pass over so many patches."""
        return max(patches // min(self.batch, patches), 1)

    def keeps(self, step: int, patches: int) -> bool:
        """Whether the weights after so many steps are kept beside the last ones."""
        every = self.steps_of_an_epoch(patches) if self.keep_every == "epoch" else self.keep_every
        return every is not None and step % every == 0


def settings_from_preset(preset: str = "default", **overrides: Any) -> StegoSettings:
    """The settings of a preset, with some of them replaced.

    Raises:
        MedsegError: the preset or a key is unknown (the nearest one is named), or the reference had the option without
            any effect.

    Example:
        >>> settings_from_preset("potsdam", clusters=3).knn_shift
        0.02
    """
    if preset not in PRESETS:
        raise MedsegError(
            f"stego.preset must be one of {', '.join(PRESETS)}, got {preset!r}; "
            f"did you mean {_nearest(preset, PRESETS)}?"
        )
    known = [field.name for field in dataclasses.fields(StegoSettings)]
    for key in overrides:
        if key in REMOVED_OPTIONS:
            raise MedsegError(f"stego.{key} must be left out, got {overrides[key]!r}; {REMOVED_OPTIONS[key]}")
        if key not in known:
            raise MedsegError(f"stego.{key} must be a known key, got {key!r}; did you mean {_nearest(key, known)}?")
    return StegoSettings(**{**PRESETS[preset], **overrides})


def _nearest(word: str, known: Any) -> str:
    return difflib.get_close_matches(word, list(known), n=1, cutoff=0.0)[0]
