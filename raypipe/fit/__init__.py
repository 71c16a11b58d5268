"""Trainings of networks and trees. The package can be called: it is the function `raypipe.api.fit`, too."""

import sys
from types import ModuleType
from typing import Any

from raypipe.kinds import resolve


class _Fit(ModuleType):
    def __call__(self, *args: Any, **given: Any) -> Any:
        """See `raypipe.api.fit`."""
        return resolve("raypipe.api:fit")(*args, **given)


sys.modules[__name__].__class__ = _Fit
