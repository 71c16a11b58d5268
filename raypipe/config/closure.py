"""When the template of the background is good enough for a significance to be quoted."""

from __future__ import annotations

from pydantic import Field

from raypipe.config.base import Section


class Closure(Section):
    """Limits on what the sidebands say of the template; beyond one of them z is withheld.

    Both numbers come from sideband events that neither flow nor classifiers of their fold have seen. Templates that
    close have AUC 0.50 to 0.52 and kappa 0.7 to 2.0.
    """

    auc: float = Field(0.55, gt=0.5, le=1)
    """Largest AUC of the search's classifiers between sideband data and template (no unit, 0.5 is perfect); as far on
    the other side of 0.5 is as bad. An AUC counts as beyond it by more than two of its statistical errors. [default]"""
    kappa: float = Field(3.0, gt=1)
    """Largest ratio of sideband data to template after a cut (no unit, 1 is perfect), or its inverse. A ratio counts as
    beyond it by more than its statistical error. [default]"""
