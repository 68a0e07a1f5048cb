"""This package gives clusters the names of classes, and says why.

A *cluster* is a number that an unsupervised method gave to a voxel; a *class* is a thing with a name and a *value*
in the mask (0 is background). Names come from rules on label-free measurements (`rulebook`, with the rules as data
in `rules/`), from training labels (`matching`), or from a person (`classes`).
"""
