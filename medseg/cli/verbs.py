"""This file joins all verbs: importing a module of them adds them to the application."""

from medseg.cli import pictures, results
from medseg.cli.app import app

__all__ = ["app", "pictures", "results"]
