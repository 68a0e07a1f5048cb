"""This file says which axis of a volume the slices of each plane lie along; it needs no torch."""

from __future__ import annotations

PLANE_AXES = {"sagittal": 0, "coronal": 1, "axial": 2}
"""The axis that runs through the slices of a plane, of a volume in R, A, S."""
