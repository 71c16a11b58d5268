"""Configurations: `base` a section, `sections` and `grid` the shared knobs, a module a search, `load` the reader."""

from raypipe.config.base import Section
from raypipe.config.load import load_config
from raypipe.config.resources import Resources
from raypipe.config.run import Config
from raypipe.config.sections import Classifier, Embedding, Encoder, Flow, MassFit, MassWindow
