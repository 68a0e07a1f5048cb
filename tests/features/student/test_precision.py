from __future__ import annotations

from contextlib import nullcontext

import pytest
import torch

from medseg.features.student import precision
from medseg.features.student.precision import half_precision


@pytest.mark.parametrize("native", [True, False])
def test_bfloat16_is_used_only_where_the_cpu_computes_it(native: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    for test in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"):
        monkeypatch.setattr(precision.torch.cpu, test, lambda: native, raising=False)
    with half_precision("cpu"):
        found = torch.nn.functional.conv3d(torch.ones(1, 1, 2, 2, 2), torch.ones(1, 1, 1, 1, 1))
    assert found.dtype == (torch.bfloat16 if native else torch.float32)


def test_another_device_keeps_its_precision() -> None:
    assert isinstance(half_precision("mps"), nullcontext)
