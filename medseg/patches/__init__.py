"""From prepared volumes to 2-D patches with a location, and which of them to train on."""
