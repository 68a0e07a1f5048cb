"""This file lets soft answers spread over a frame's cells until borders stop them: a random walker with priors.

Its words: a *cell* is one square of the frame's grid, a *link* joins two neighbours, its *weight* says how freely a
walker passes; the *pull* (gamma of the paper) is the weight of the link from each cell to its own prior.

References:
    Grady, Multilabel Random Walker Image Segmentation Using Prior Models, CVPR 2005.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float
from scipy.linalg import cho_solve_banded, cholesky_banded

LEAST_WEIGHT = 1e-4
"""Weight of a link over the strongest border, so that no cell is ever quite alone."""
TINY = 1e-12
"""Added to mean differences: where all cells are equal there are no borders, and no division by zero."""


class RandomWalker:
    """Walkers over the cells of one frame, set up once for many priors.

    The answer p minimises the sum over links of weight * (difference of p)^2 + pull * sum (p - prior)^2. The weight of
    a link is exp(-sharpness * d), d the squared difference of its two cells over the frame's mean squared difference,
    averaged over the maps given by their shares. Cells outside the region have no links and keep their prior.

    Args:
        maps: what borders are seen in, each with its share; shares need not sum to 1.
        region: cells that take part.
        pull: weight of the priors; a link in even tissue has 1.
        sharpness: beta of the paper; 0 spreads answers whatever lies between.
    """

    def __init__(
        self,
        maps: list[tuple[Float[np.ndarray, "_ h w"], float]],
        region: Bool[np.ndarray, "h w"],
        *,
        pull: float,
        sharpness: float,
    ) -> None:
        height, width = self._shape = region.shape
        total = sum(share for _, share in maps)
        differences = [_differences(np.asarray(values, np.float64)) for values, _ in maps]
        across, down = (
            sum(share / total * of_map[axis] for of_map, (_, share) in zip(differences, maps, strict=True))
            for axis in (0, 1)
        )
        across = (np.exp(-sharpness * across) + LEAST_WEIGHT) * (region[:, 1:] & region[:, :-1])
        down = (np.exp(-sharpness * down) + LEAST_WEIGHT) * (region[1:] & region[:-1])
        diagonal = np.full(region.shape, float(pull))
        diagonal[:, 1:] += across
        diagonal[:, :-1] += across
        diagonal[1:] += down
        diagonal[:-1] += down
        # In reading order a neighbour is 1 or `width` cells away, so the matrix is a band and its factor another.
        band = np.zeros((width + 1, region.size))
        band[0] = diagonal.ravel()
        band[1].reshape(region.shape)[:, :-1] = -across
        band[width, : (height - 1) * width] = -down.ravel()
        self._pull = pull
        self._factor = cholesky_banded(band, lower=True, overwrite_ab=True, check_finite=False)

    def answers(self, priors: Float[np.ndarray, "n h w"]) -> Float[np.ndarray, "n h w"]:
        """Spread priors; values stay within the range of each prior."""
        right = self._pull * np.asarray(priors, np.float64).reshape(len(priors), -1).T
        found = cho_solve_banded((self._factor, True), right, overwrite_b=True, check_finite=False)
        return found.T.reshape(-1, *self._shape)


def _differences(values: Float[np.ndarray, "c h w"]) -> tuple[np.ndarray, np.ndarray]:
    """Squared differences of neighbours in a row and in a column, over their mean."""
    across = ((values[:, :, 1:] - values[:, :, :-1]) ** 2).sum(0)
    down = ((values[:, 1:] - values[:, :-1]) ** 2).sum(0)
    mean = (across.sum() + down.sum()) / (across.size + down.size) + TINY
    return across / mean, down / mean
