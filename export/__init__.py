"""Checkpoint to artifact: reparameterise, lower, convert, verify, package."""

from export.adapters import Description, register
from export.lowering import Lowering, lower
from export.module import convert_module
from export.pipeline import export
from export.reparameterize import reparameterize
from export.static import Attention

__all__ = ["Attention", "Description", "Lowering", "convert_module", "export", "lower", "register", "reparameterize"]
