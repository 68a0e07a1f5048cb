"""Teachers make labels without a human: sure voxels teach a network, doubtful ones are left out of its loss."""
