"""Configurations: `base` a section, `sections` and `grid` the shared knobs, a module a search, `load` the reader."""

from raypipe.config.base import Section
from raypipe.config.contrastive import Config
from raypipe.config.grid import Scan, Selection
from raypipe.config.load import SEARCHES, load_config
from raypipe.config.resources import Resources, Tracking
from raypipe.config.sections import (
    Classifier,
    Embedding,
    Encoder,
    Flow,
    MassFit,
    MassWindow,
    PseudoData,
    SampleSize,
    Simulate,
)  # fmt: skip

__all__ = [
    "SEARCHES", "Classifier", "Config", "Embedding", "Encoder", "Flow", "MassFit", "MassWindow", "PseudoData",
    "Resources", "SampleSize", "Scan", "Section", "Selection", "Simulate", "Tracking", "load_config",
]  # fmt: skip
