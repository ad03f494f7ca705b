"""Checkpoint to artifact: reparameterise, lower, convert, verify, package."""

from export.lowering import Lowering, lower
from export.pipeline import export
from export.reparameterize import reparameterize

__all__ = ["Lowering", "export", "lower", "reparameterize"]
