"""raypipe: model-agnostic searches for new physics, from a laptop to a Ray cluster."""

import sys

__version__ = "0.2.0"

if sys.argv[:1] == ["-m"] and not sys.flags.safe_path:
    # `python -m raypipe.cli` puts the working folder first, where a signal.py of the user would hide Python's own.
    sys.path.append(sys.path.pop(0))
