"""medseg segments medical volumes with few or no labels."""

import os

# The hub's client, with which weights are fetched, would tell who asks; nothing here reports anything to anybody.
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")

__version__ = "0.1.0"
