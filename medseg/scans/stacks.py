"""This file turns frames of pictures into a volume that viewers show upright, and back.

*Frames* are `h w n`: row from the top, column from the left, frame. A *stack* is `w h n` with the `STACK_AFFINE`:
its first axis runs from the patient's right to the left and its second upwards, so that ITK-SNAP and 3D Slicer show
each frame as the picture looks. Unit: pixels, because pictures state no millimetres.
"""

from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
from jaxtyping import Shaped

from medseg.errors import MedsegError
from medseg.files import replacing

STACK_AFFINE = np.diag([-1.0, 1.0, 1.0, 1.0])


def as_stack(frames: Shaped[np.ndarray, "h w n"]) -> Shaped[np.ndarray, "w h n"]:
    """Frames as the voxels of a stack."""
    return np.ascontiguousarray(frames[::-1].swapaxes(0, 1))


def as_frames(stack: Shaped[np.ndarray, "w h n"]) -> Shaped[np.ndarray, "h w n"]:
    """Voxels of a stack as frames."""
    return np.ascontiguousarray(stack.swapaxes(0, 1)[::-1])


def write_stack(path: Path, frames: Shaped[np.ndarray, "h w n"]) -> None:
    """Write frames as one `.nii.gz`, atomically."""
    image = nibabel.Nifti1Image(as_stack(frames), STACK_AFFINE)
    with replacing(path) as beside:
        nibabel.save(image, beside)


def read_stack(path: Path) -> Shaped[np.ndarray, "h w n"]:
    """Read frames that `write_stack` wrote.

    Raises:
        MedsegError: the file is missing or broken.
    """
    try:
        return as_frames(np.asarray(nibabel.load(path).dataobj))  # type: ignore[attr-defined]
    except (OSError, EOFError, ValueError, nibabel.filebasedimages.ImageFileError) as error:
        reason = " ".join(str(error).split())
        raise MedsegError(f"{path} must be a stack of frames, got {reason}; reconstruct it again") from error
