"""This file joins all verbs: importing a module of them adds them to the application."""

from medseg.cli import annotating, clusters, datus, naming, pictures, results, sweeping, teaching
from medseg.cli.app import app

__all__ = ["annotating", "app", "clusters", "datus", "naming", "pictures", "results", "sweeping", "teaching"]
