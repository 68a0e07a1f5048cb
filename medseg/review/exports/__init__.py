"""This package writes masks in the forms that other programs ask for, one module a form.

A *target* is the name of such a form. Each writer takes a `Mask`, which holds labels, geometry and classes, so what a
scan came from does not limit what its mask can become; only DICOM SEG needs a DICOM source.
"""

TARGETS = ("nifti", "slicer", "dicom-seg", "mesh", "bids", "nnunet", "monai")
"""What `medseg export --to` takes."""
