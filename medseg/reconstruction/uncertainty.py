"""This file says how sure a mask is: how many of those that were asked would have decided otherwise.

*Members* are asked: the voters of the method (seeds), the student of each round, the flux rule. Each gives a
probability to each class of each voxel; their mean is the *agreement*. The *uncertainty* of a voxel is one minus the
agreement with the class that the mask gives it, so it is 0 where all are sure of it and 1 where none believes it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Integer

from medseg.prepare.vesselness import scratch_array


class Agreement:
    """The running mean of what the members say of a volume, in one volume a class.

    Args:
        shape: classes (background left out), i, j, k.
    """

    def __init__(self, shape: Sequence[int]) -> None:
        self._sum = scratch_array(tuple(shape))
        self._members = 0

    def add(self, probabilities: Float[np.ndarray, "c i j k"], *, votes: int = 1) -> None:
        """Count a member, or the mean of several."""
        for total, part in zip(self._sum, probabilities, strict=True):
            for plane, values in zip(total, part, strict=True):  # no temporary volume
                plane += votes * values
        self._members += votes

    def uncertainty(
        self, labels: Integer[np.ndarray, "i j k"], values: Sequence[int], *, slices: slice = slice(None)
    ) -> Float[np.ndarray, "i j k"]:
        """One minus the members' mean probability of each voxel's label, 0 to 1.

        Args:
            labels: the mask; 0 is background.
            values: the class value of each channel.
            slices: which slices of the volume the mask is of.
        """
        uncertain = scratch_array(labels.shape)
        for i, given in enumerate(labels):
            shares = self._sum[:, i, :, slices] / max(self._members, 1)
            agreed = 1 - shares.sum(0)
            for value, share in zip(values, shares, strict=True):
                agreed = np.where(given == value, share, agreed)
            uncertain[i] = np.clip(1 - agreed, 0, 1)
        return uncertain
