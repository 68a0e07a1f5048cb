"""medseg segments medical volumes with few or no labels."""

__version__ = "0.1.0"
