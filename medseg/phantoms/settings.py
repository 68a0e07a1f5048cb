"""This file says what can be set about a phantom, in which unit, and what of it is impossible.

Words: a *tissue median* is the median brightness of the brain, the unit of noise, contrast and other brightness. What
is *acquired* is the voxel size at which the scanner samples; a finer grid was interpolated by zeros in k-space.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from medseg.errors import MedsegError

Anatomy = Literal["box", "head"]
Triple = tuple[float, float, float]


@dataclass(frozen=True)
class PhantomSettings:
    """What sets one phantom apart from another besides its seed and its grid.

    Attributes:
        anatomy: `box` is cut from a head around the arterial circle; `head` shrinks the head into the field of view.
        arteries: False leaves every artery out, those of the scalp too; the label is then empty.
        noise_sd: of the Rician noise, in each of its two channels, in the mean over the brain.
        noise_spread: by how much the noise differs from place to place as with parallel imaging (sd of its logarithm).
        grain_mm: length over which the noise is alike; 0 for independent voxels.
        contrast: how much brighter than tissue the axis of a large artery is where the blood enters.
        thin_dimming: share of the contrast that the thinnest arteries have lost to their slow flow.
        inflow: share of the contrast that is left at the top of a slab.
        slabs: number of slabs; the inflow starts anew in each.
        slab_dip: share of brightness that is lost where two slabs meet.
        ghost: share of the arteries' signal that pulsation throws along j, a third of the volume away.
        shading: sd of the coil's slow gain.
        fat: brightness of fat.
        fat_pads: orbits, bone marrow, fossae and a sheet in the falx, all of fat, are added.
        venous: brightness of the venous sinuses, which are not in the label.
        small_veins: number of deep and cortical veins besides the sinuses; they are not in the label.
        small_vein_level: their brightness.
        psf_mm: sigma of the scanner's blur, one for all axes or one for each.
        acquired_mm: voxel size at which the scanner samples; None where it is the grid's own.
        apodise: share of the sampled k-space that fades out, 0 for a sharp end, which rings.
        laminar: by how much the speed falls from the axis of an artery (1) to its wall (1 - laminar).
        profile_power: of the distance from the axis that the speed falls with; 2 is laminar flow, more is blunter.
        texture_sd: how much brain tissue varies.
        texture_mm: lengths of a coarse and a fine variation.
        smallest_mm: radius of the thinnest arteries.
        murray: power of the radius that is conserved where arteries fork; 3 is Murray's law.
        tortuosity: factor on how much arteries wave and turn.
        twig_length: factor on the length from fork to fork.
        looseness: factor on the scatter of the named arteries' landmarks.
        aneurysms: number of saccular aneurysms on forks of large arteries; they are in the label.
        huge_mm: radius of one very bright object that is no vessel, such as a bleeding; 0 for none.
        huge_level: its brightness.
        huge_inside: most of it lies in the brain rather than outside.
        stripped: everything outside the brain is exactly 0, arteries and their label too.
    """

    anatomy: Anatomy = "box"
    arteries: bool = True
    noise_sd: float = 0.1
    noise_spread: float = 0.0
    grain_mm: float = 0.3
    contrast: float = 3.0
    thin_dimming: float = 0.0
    inflow: float = 0.6
    slabs: int = 1
    slab_dip: float = 0.0
    ghost: float = 0.0
    shading: float = 0.12
    fat: float = 1.8
    fat_pads: bool = False
    venous: float = 1.5
    small_veins: int = 0
    small_vein_level: float = 1.4
    psf_mm: float | Triple = 0.3
    acquired_mm: Triple | None = None
    apodise: float = 0.0
    laminar: float = 0.5
    profile_power: float = 2.0
    texture_sd: float = 0.03
    texture_mm: tuple[float, float] = (7.0, 2.5)
    smallest_mm: float = 0.36
    murray: float = 3.0
    tortuosity: float = 1.0
    twig_length: float = 1.0
    looseness: float = 1.0
    aneurysms: int = 0
    huge_mm: float = 0.0
    huge_level: float = 4.0
    huge_inside: bool = True
    stripped: bool = False

    def __post_init__(self) -> None:
        if self.noise_sd < 0 or self.contrast <= 0 or self.slabs < 1:
            raise MedsegError(
                "noise must be at least 0, contrast above 0 and slabs at least 1, "
                f"got {self.noise_sd}, {self.contrast}, {self.slabs}; change the one that is off"
            )
        for name in ("thin_dimming", "slab_dip", "ghost", "apodise", "laminar"):
            value = getattr(self, name)
            if not 0 <= value <= 1:
                raise MedsegError(f"{name} must be a share from 0 to 1, got {value}; change it")
        for name in ("aneurysms", "small_veins", "huge_mm", "noise_spread", "grain_mm"):
            value = getattr(self, name)
            if value < 0:
                raise MedsegError(f"{name} must be at least 0, got {value}; give 0 for none")
        for name in ("murray", "tortuosity", "twig_length", "looseness", "profile_power"):
            value = getattr(self, name)
            if value <= 0:
                raise MedsegError(f"{name} must be above 0, got {value}; leave it out for the usual value")

    @property
    def psf_axes_mm(self) -> Triple:
        """The blur along i, j and k."""
        return self.psf_mm if isinstance(self.psf_mm, tuple) else (self.psf_mm, self.psf_mm, self.psf_mm)


def require_grid(shape: tuple[int, int, int], spacing: Triple, anatomy: Anatomy) -> None:
    """Raise unless a phantom can be drawn on the grid.

    Raises:
        MedsegError: the volume is smaller than 16 voxels along an axis, a head finds no room, or a size is not above 0.
    """
    if min(shape) < 16:
        raise MedsegError(
            f"the shape of a phantom must be at least 16 voxels a side, got {shape}; ask for a larger one"
        )
    if min(spacing) <= 0:
        raise MedsegError(f"the spacing of a phantom must be above 0 mm, got {spacing}; give three sizes in mm")
    if anatomy == "head" and min(n * h for n, h in zip(shape[:2], spacing[:2], strict=True)) < 100:
        raise MedsegError(
            f"a head must have a field of view of 100 mm, got {shape} at {spacing} mm; add voxels or take a box"
        )
