"""A short run of the readers' fuzzing: every mutated file is read or refused in one line."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from medseg.scans.contained import Contained

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
if not BENCHMARKS.is_dir():
    pytest.skip("a source distribution holds no benchmarks", allow_module_level=True)
sys.path.append(str(BENCHMARKS))

import fuzz_readers  # noqa: E402 (the folder is made known first)

sys.path.remove(str(BENCHMARKS))

_FILES = 25
_LEAST_PAST = 0.6


@pytest.fixture(scope="module")
def contained() -> Iterator[Contained]:
    with Contained(memory_bytes=fuzz_readers.MEMORY_BYTES, seconds=30, modules=("medseg.scans.check",)) as contained:
        yield contained


@pytest.mark.parametrize("family", fuzz_readers.FAMILIES)
def test_mutated_files_are_read_or_refused_in_one_line(family: str, contained: Contained) -> None:
    result = fuzz_readers.fuzz(family, files=_FILES, seed=7, contained=contained)
    assert result.files == _FILES
    assert result.past >= _LEAST_PAST * _FILES
    assert set(result.counts) <= {"read", "refused", "crashed", "memory"}, result.examples
    assert result.counts["refused"] > 0


def test_the_whole_files_are_read_and_a_mutation_is_told_by_its_number(tmp_path: Path, contained: Contained) -> None:
    for family, make in fuzz_readers.FAMILIES.items():
        folder = tmp_path / family
        folder.mkdir()
        seeds = make(folder)
        for name in seeds:
            (tmp_path / "alone").mkdir(exist_ok=True)
            path = tmp_path / "alone" / name
            path.write_bytes(seeds[name])
            assert fuzz_readers.outcome_of(contained, path, fuzz_readers.Pick(frame=0)) == ("read", ""), name
            path.unlink()
        once, again = (list(fuzz_readers.mutations(family, seeds, 9, 3)) for _ in range(2))
        assert once == again
        assert sum(content != seeds[name] for name, content in once) >= 8
