"""This file tells from the first bytes whether a file may be DICOM, without pydicom, so that names are told quickly.

A *preamble* is the 128 bytes and the word `DICM` in front of a DICOM file; old files lack it and begin with the first
element at once.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

HEAD_BYTES = 132
"""Bytes that must be read to tell."""
_MAGIC = b"DICM"
_VALUE_REPRESENTATIONS = frozenset(
    b"AE AS AT CS DA DS DT FD FL IS LO LT OB OD OF OL OV OW PN SH SL SQ SS ST SV TM UC UI UL UN UR US UT UV".split()
)
"""Codes of the kinds of values, which stand in the first element of most files."""
_LONGEST_FIRST_VALUE = 1024
"""Bytes of the first element of a data set; it is a number, a code or a UID."""


def has_preamble(head: bytes) -> bool:
    """Whether a file that begins with these bytes says that it is DICOM."""
    return head[128:HEAD_BYTES] == _MAGIC


def is_bare(head: bytes) -> bool:
    """Whether bytes look like the first element of a data set: group 2 or 8, and a length that such values have."""
    if len(head) < HEAD_BYTES:
        return False
    order: Literal["little", "big"] = "big" if head[0] == 0 else "little"
    group, element = (int.from_bytes(head[at : at + 2], order) for at in (0, 2))
    if group not in (2, 8) or element > 0xFF:
        return False
    if head[4:6] in _VALUE_REPRESENTATIONS:
        return int.from_bytes(head[6:8], order) <= _LONGEST_FIRST_VALUE
    return order == "little" and int.from_bytes(head[4:8], "little") <= _LONGEST_FIRST_VALUE


def may_be_dicom(path: Path) -> bool:
    """Whether a file begins as a DICOM file does; one that cannot be read does not."""
    try:
        with path.open("rb") as stream:
            head = stream.read(HEAD_BYTES)
    except OSError:
        return False
    return has_preamble(head) or is_bare(head)
