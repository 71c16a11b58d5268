"""Configurations: `base` a section; `inputs`, `sections`, `grid` the shared ones; a module a search; `load` reads."""

from raypipe.config.base import Resources, Section
from raypipe.config.inputs import Embedding, Encoder
from raypipe.config.load import load_config
from raypipe.config.run import Config
from raypipe.config.sections import Classifier, Flow, MassFit, MassWindow
