"""This package reads DICOM: single files, folders and zip archives of slices, multi-frame objects and pictures.

An *instance* is one DICOM object (one file, or one member of a zip). A *plane* is where one frame of it lies. A *slice*
is a plane with its pixels, a *stack* slices in order, and a *series* what a scanner made in one go. An *entry* is what
a user can name and read: the slices of one series, one multi-frame volume, or one *picture*, which has no planes.
Nothing of the patient (name, number, dates) and no UID leaves this package in a message or a name.
"""
