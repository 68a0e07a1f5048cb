"""This package compares masks with references, and with what simple rules draw on the same scan.

*Predicted* and *reference* are bool arrays `[i, j, k]` on one grid, *spacing* is the voxel size in
mm along those axes. Nothing here imports torch: a radiologist's laptop scores as well as a server.
"""
