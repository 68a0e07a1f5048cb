"""This file decides in which precision a student computes."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch


def half_precision(device: torch.device | str) -> AbstractContextManager[object]:
    """A context of bfloat16 where the device computes it natively, else one that changes nothing.

    Emulated bfloat16 is slower than float32, and float16 is not for training on a CPU.
    """
    kind = torch.device(device).type
    native = torch.cuda.is_bf16_supported(including_emulation=False) if kind == "cuda" else kind == "cpu" and _cpu_has()
    return torch.autocast(kind, torch.bfloat16) if native else nullcontext()


def _cpu_has() -> bool:
    """Whether this CPU has instructions for bfloat16; torch tells it by names that older ones lack."""
    tests = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(getattr(torch.cpu, test, lambda: False)() for test in tests)
