"""raypipe: model-agnostic searches for new physics, from a laptop to a Ray cluster."""

__version__ = "0.1.0"
