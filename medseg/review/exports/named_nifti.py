"""This file writes a mask as NIfTI with the names and colours of its classes inside, and tables of them beside.

The names are a label table in XML, the form of Connectome Workbench, in two equal header extensions: Workbench reads
only the code registered for it (30, `caret`), and TotalSegmentator, through nibabel, only the first, of code 0.
ITK-SNAP and 3D Slicer read no extension: for them are `labels.txt` and `labels.ctbl`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree

from medseg.naming.classes import ClassEntry
from medseg.review.exports.masks import Mask
from medseg.scans.masks import write_label_tables, write_like

_CODES = (0, 30)
_EXTENSION_BYTES = 16
"""An extension's size must be a multiple of this, its own eight bytes of size and code included."""


def write_named_nifti(folder: Path, mask: Mask) -> list[Path]:
    """Write `CASE_seg.nii.gz`, `labels.txt` and `labels.ctbl`; geometry, forms and codes stay what they are."""
    path = folder / f"{mask.case_id}_seg.nii.gz"
    write_like(path, mask.labels, mask.header, extension=label_extensions(mask.classes))
    write_label_tables(folder, [entry.as_dict() for entry in mask.classes])
    return [path, folder / "labels.txt", folder / "labels.ctbl"]


def label_extensions(classes: Sequence[ClassEntry]) -> bytes:
    """NIfTI header extensions with the classes, each: size, code and XML."""
    root = ElementTree.Element("CaretExtension")
    volume = ElementTree.SubElement(root, "VolumeInformation", Index="0")
    table = ElementTree.SubElement(volume, "LabelTable")
    for entry in classes:
        red, green, blue = (f"{part / 255:.6g}" for part in bytes.fromhex(entry.colour.removeprefix("#")))
        key = {"Key": str(entry.value), "Red": red, "Green": green, "Blue": blue, "Alpha": "1"}
        ElementTree.SubElement(table, "Label", key).text = entry.name
    ElementTree.SubElement(volume, "VolumeType").text = "Label"
    text = ElementTree.tostring(root, encoding="utf-8", xml_declaration=True)
    size = -(-(len(text) + 8) // _EXTENSION_BYTES) * _EXTENSION_BYTES
    # Blanks fill them up, because not every XML reader takes zeros.
    return b"".join(size.to_bytes(4, "little") + code.to_bytes(4, "little") + text.ljust(size - 8) for code in _CODES)
