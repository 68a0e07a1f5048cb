"""This file reads weights from files of others without running anything that is in them.

Words: a *checkpoint* is a file with weights and whatever its program kept beside them; *weights* are
a flat mapping from published tensor names to tensors; a *stub* stands for an object of a class that
is not read. Three kinds of file are read: safetensors; what `torch.load(weights_only=True)` takes;
and zip checkpoints (Lightning's) that name other classes, whose tensors and plain values are taken
while every other class becomes a stub. Any other pickle is refused.
"""

from __future__ import annotations

import hashlib
import io
import logging
import pickle
import re
import warnings
import zipfile
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from medseg.errors import MedsegError

_log = logging.getLogger(__name__)

# Where published checkpoints keep their weights, from the outside in. DINO's full checkpoint holds
# student and teacher; the teacher is the network whose features are published.
_NESTED_UNDER = ("state_dict", "teacher", "model")
# Copies of the network that are not the one to use while another is there (DINO, MoCo v2, MoCo v3).
_SECOND_CHOICE = ("student", "encoder_k", "momentum_encoder")
# The tensors that tell where in the names a network begins.
_ANCHORS = (("patch_embed.proj.weight",), ("conv1.weight", "layer1.0.conv1.weight"))
_STORAGE_TYPES = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Read the tensors and plain values of a checkpoint; nothing in the file is executed.

    Args:
        path: A `.safetensors` file or one written by `torch.save` (`.pth`, `.pt`, `.ckpt`, `.pth.tar`).

    Returns:
        The file's dictionary. Objects of other classes in a Lightning checkpoint are empty stubs.

    Raises:
        MedsegError: the file is missing, damaged, no checkpoint, or a pickle that holds anything
            but tensors and plain values.
    """
    path = Path(path)
    if not path.is_file():
        raise MedsegError(f"{path} must be an existing checkpoint file, got none; check features.checkpoint")
    if path.suffix == ".safetensors":
        try:
            return dict(safetensors.torch.load_file(path))
        except (safetensors.SafetensorError, OSError) as error:
            raise MedsegError(
                f"{path} must be a complete safetensors file, got {_one_line(error)}; fetch it again"
            ) from error
    try:
        with warnings.catch_warnings():  # remarks on old storage classes and pickle protocols
            warnings.simplefilter("ignore")
            content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if not zipfile.is_zipfile(path):
            raise _refusal(path, _named_class(error)) from error
        content = _read_with_stubs(path)
    except Exception as error:  # a damaged file ends in many ways: RuntimeError, EOFError, KeyError ...
        raise MedsegError(
            f"{path} must be a complete checkpoint written by torch.save, got {_one_line(error)}; fetch it again"
        ) from error
    if not isinstance(content, Mapping):
        raise MedsegError(
            f"{path} must hold a dictionary of tensors, got a {type(content).__name__}; "
            "save it again with torch.save(model.state_dict(), ...)"
        )
    return dict(content)


def read_weights(path: Path) -> dict[str, Tensor]:
    """Read the tensors of a checkpoint under their published names, whatever they are nested under.

    Raises:
        MedsegError: as `read_checkpoint`, and when there is no tensor in the file.
    """
    content: Mapping[str, Any] = read_checkpoint(path)
    while inner := next((content[key] for key in _NESTED_UNDER if isinstance(content.get(key), Mapping)), None):
        content = inner
    weights = {name: value.detach() for name, value in content.items() if isinstance(value, Tensor)}
    if not weights:
        raise MedsegError(
            f"{path} must hold tensors (at the top or under {', '.join(_NESTED_UNDER)}), got none; "
            "save it again with torch.save(model.state_dict(), ...)"
        )
    return weights


def strip_prefix(weights: Mapping[str, Tensor]) -> tuple[str, dict[str, Tensor]]:
    """Cut off what stands before the backbone's own names (`teacher.`, `module.encoder_q.`, ...).

    The prefix is found from the first layer of a ViT or a ResNet, so any nesting is read, also the
    backbone within a whole STEGO model. Among several networks teacher and query encoder win.

    Returns:
        The prefix and the backbone's weights by published name; `("", {})` when there is no
        ViT and no ResNet among the weights.

    Example:
        >>> strip_prefix({"module.patch_embed.proj.weight": torch.zeros(4, 3, 8, 8), "loss": torch.zeros(1)})[0]
        'module.'
    """
    prefixes = {
        name.removesuffix(first): None
        for first, *others in _ANCHORS
        for name in weights
        if re.search(rf"(^|\.){re.escape(first)}$", name)
        and all(name.removesuffix(first) + other in weights for other in others)
    }
    if not prefixes:
        return "", {}
    prefix = min(prefixes, key=lambda known: (any(word in known for word in _SECOND_CHOICE), len(known)))
    return prefix, {name.removeprefix(prefix): value for name, value in weights.items() if name.startswith(prefix)}


def hash_weights(weights: Mapping[str, Tensor], *settings: object) -> str:
    """SHA-256 over plain settings and over names, shapes and bytes of the weights, in any file format the same."""
    digest = hashlib.sha256(repr(settings).encode())
    for name in sorted(weights):
        value = weights[name].detach().cpu().contiguous()
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(value.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


class _Stub:
    """Stands for an object of a class that is not read: it takes everything and does nothing."""

    def __init__(self, *args: object, **kwargs: object) -> None: ...

    def __call__(self, *args: object, **kwargs: object) -> None: ...

    def __setstate__(self, state: object) -> None: ...

    def __setitem__(self, key: object, value: object) -> None: ...

    def append(self, value: object) -> None: ...

    def extend(self, values: object) -> None: ...

    def add(self, value: object) -> None: ...


def _strided_tensor(storage: Tensor, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *_: object) -> Tensor:
    """Our stand-in for torch's tensor builder; as_strided refuses to leave the storage."""
    return torch.as_strided(storage, size, stride, offset).clone()


def _parameter_as_tensor(tensor: Tensor, *_: object) -> Tensor:
    """Our stand-in for torch's parameter builder."""
    return tensor


# The only callables a checkpoint can reach, ours or harmless.
_BUILDERS = {
    ("collections", "OrderedDict"): OrderedDict,
    ("torch._utils", "_rebuild_tensor_v2"): _strided_tensor,
    ("torch._utils", "_rebuild_parameter"): _parameter_as_tensor,
}


class _TensorsOnly(pickle.Unpickler):
    """Unpickles tensors and plain values of one zip checkpoint; no class or function of the file is imported."""

    def __init__(self, stream: io.BytesIO, archive: zipfile.ZipFile, root: str) -> None:
        super().__init__(stream)
        self.stubbed: set[str] = set()
        self._archive, self._root = archive, root
        self._storages: dict[str, Tensor] = {}

    def find_class(self, module: str, name: str) -> Any:
        if builder := _BUILDERS.get((module, name)):
            return builder
        if module == "torch" and name in _STORAGE_TYPES:
            return _STORAGE_TYPES[name]
        self.stubbed.add(f"{module}.{name}")
        return _Stub

    def persistent_load(self, pid: Any) -> Tensor:
        _, dtype, key, _, _ = pid
        if key not in self._storages:
            content = bytearray(_stored(self._archive, f"{self._root}data/{key}"))
            self._storages[key] = torch.frombuffer(content, dtype=dtype) if content else torch.empty(0, dtype=dtype)
        return self._storages[key]


def _read_with_stubs(path: Path) -> Mapping[str, Any]:
    """The dictionary of a Lightning checkpoint, every class but tensors and plain values stubbed."""
    try:
        with zipfile.ZipFile(path) as archive:
            root = next(name for name in archive.namelist() if name.endswith("data.pkl")).removesuffix("data.pkl")
            unpickler = _TensorsOnly(io.BytesIO(_stored(archive, f"{root}data.pkl")), archive, root)
            content = unpickler.load()
    except Exception as error:  # hostile bytes can end in any error of the unpickler
        raise MedsegError(f"{path} must be a complete checkpoint, got {_one_line(error)}; fetch it again") from error
    # Only a checkpoint whose weights are plain is taken; elsewhere a stub would stand for what was asked.
    if not isinstance(content, dict) or not isinstance(content.get("state_dict"), dict):
        raise _refusal(path, ", ".join(sorted(unpickler.stubbed)))
    _log.info(
        "%s: weights read; objects of %s were left out, nothing was run", path, ", ".join(sorted(unpickler.stubbed))
    )
    return content


def _stored(archive: zipfile.ZipFile, name: str) -> bytes:
    """An uncompressed entry, which cannot be larger than the file (torch.save never compresses)."""
    if archive.getinfo(name).compress_type != zipfile.ZIP_STORED:
        raise ValueError(f"compressed entry {name}")
    return archive.read(name)


def _refusal(path: Path, classes: str) -> MedsegError:
    got = f"a pickle that names {classes} (not executed)" if classes else "something else"
    return MedsegError(
        f"{path} must hold only tensors and plain values, got {got}; "
        "use safetensors or save it again with torch.save(model.state_dict(), ...)"
    )


def _named_class(error: Exception) -> str:
    """The class or function that torch's own restricted reader stopped at, if it says so."""
    found = re.search(r"GLOBAL ([\w.]+)", str(error))
    return found.group(1) if found else ""


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:160] or type(error).__name__
