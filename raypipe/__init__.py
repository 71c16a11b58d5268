"""raypipe: model-agnostic searches for new physics, from a laptop to a Ray cluster.

>>> import raypipe as rp
>>> config = rp.load("configs/contrastive/laptop.yaml", "flow.epochs=20")
>>> rp.Run(config)  # nothing happens before something is asked for
Run(contrastive, runs/laptop)
"""

import sys

__version__ = "0.2.0"
__all__ = ["Run", "UserError", "background", "classify", "fit", "hunt", "load"]
TYPE_CHECKING = False

if sys.argv[:1] == ["-m"] and not sys.flags.safe_path:
    # `python -m raypipe.cli` puts the working folder first, where a signal.py of the user would hide Python's own.
    sys.path.append(sys.path.pop(0))

if TYPE_CHECKING:
    from raypipe.api import classify, fit, hunt, load
    from raypipe.errors import UserError
    from raypipe.run import Run
    from raypipe.search.base import background

_HOME = {"Run": "run", "UserError": "errors", "background": "search.base", "fit": "fit"}


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module 'raypipe' has no attribute {name!r}: there are {', '.join(__all__)}")
    from importlib import import_module

    module = import_module(f"raypipe.{_HOME.get(name, 'api')}")
    return module if name == "fit" else getattr(module, name)  # a package of that name, which can be called


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
