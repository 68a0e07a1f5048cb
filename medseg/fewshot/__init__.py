"""This package learns a probe from a few labels: a small head on frozen features, with a label-free prior."""
