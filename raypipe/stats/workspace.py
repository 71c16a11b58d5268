"""One likelihood of all bins of a score: a HistFactory model (pyhf), and its discovery significance.

In bin i of the background percentile, with c continuum, h Higgs and s signal events expected in the signal region, and
t template events beside the sidebands' data,

    n_i ~ Poisson( g_i (k_i f c_i + y h_i) + mu s_i )          m_i ~ Poisson( k_i t_i )

k: free and shared between the regions, what the template gets wrong where the classifier selects; g: statistics of the
template (of both regions), of the Higgs simulation, and the transfer of k, Gaussian; f, y: normalisation and Higgs
yield, log-normal. Test statistics and asymptotics: 1007.1727.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any

import numpy as np
from scipy import optimize

SIGNAL_REGION, SIDEBANDS = "signal_region", "sidebands"
PREFIX = "likelihood_"
STEP = 1e-5
"""Of parameters of order one, in the differences that make a gradient."""


@dataclass(frozen=True)
class ScoreBins:
    """Counts and expectations, (k,) each, the most signal-like bin first.

    ``template_error``: relative; ``higgs_error``: events, of the simulation. ``signal``: events at mu = 1. ``sideband``
    and ``sideband_template``: empty without sidebands. ``normalisation``: relative error of the continuum, infinite
    where it is free. ``higgs_uncertainty``: relative error of the yield.
    """

    edges: np.ndarray  # (k + 1,) background percentiles from 0 to 1
    observed: np.ndarray
    continuum: np.ndarray
    template_error: np.ndarray
    higgs: np.ndarray
    higgs_error: np.ndarray
    signal: np.ndarray
    sideband: np.ndarray
    sideband_template: np.ndarray
    normalisation: float
    higgs_uncertainty: float

    def arrays(self) -> dict[str, np.ndarray]:
        """For a ledger."""
        return {PREFIX + field.name: np.atleast_1d(getattr(self, field.name)) for field in fields(self)}

    @classmethod
    def of(cls, arrays: Mapping[str, np.ndarray]) -> ScoreBins:
        """What `arrays` gave."""
        found = {field.name: arrays[PREFIX + field.name] for field in fields(cls)}
        return cls(**found | {name: float(found[name][0]) for name in ("normalisation", "higgs_uncertainty")})

    @property
    def expected(self) -> np.ndarray:
        """Background of the signal region before any fit."""
        return self.continuum + self.higgs


def workspace(bins: ScoreBins, name: str = "search") -> dict[str, Any]:
    """The model and its data as a pyhf workspace with one measurement; its parameter of interest is ``mu``."""
    largest = 2 * (bins.observed.sum() + bins.expected.sum() + 10) / bins.signal.sum()
    parameters = [{"name": "mu", "inits": [1.0], "bounds": [[0.0, float(largest)]]}]
    parameters.append({"name": "template", "bounds": [[0.02, 10.0]] * len(bins.observed)})
    continuum = [_modifier("template", "staterror", bins.template_error * bins.continuum)]
    if np.isinf(bins.normalisation):
        continuum.append(_modifier("normalisation", "normfactor"))
    else:
        continuum.append(_modifier("normalisation", "normsys", _lognormal(bins.normalisation)))
    higgs = [_modifier("template", "staterror", bins.higgs_error)]
    higgs.append(_modifier("higgs_yield", "normsys", _lognormal(bins.higgs_uncertainty)))
    shared = [_modifier("kappa", "shapefactor")] if len(bins.sideband) else []
    samples = [_sample("signal", bins.signal, [_modifier("mu", "normfactor")])]
    samples.append(_sample("continuum", bins.continuum, shared + continuum))
    samples += [_sample("higgs", bins.higgs, higgs)] if bins.higgs.any() else []
    channels = [{"name": SIGNAL_REGION, "samples": samples}]
    observations = [{"name": SIGNAL_REGION, "data": bins.observed.tolist()}]
    if len(bins.sideband):
        kappa = bins.sideband / bins.sideband_template
        limits = np.c_[kappa / 20, kappa * 20].tolist()
        parameters.append({"name": "kappa", "inits": kappa.tolist(), "bounds": limits})
        channels.append({"name": SIDEBANDS, "samples": [_sample("continuum", bins.sideband_template, shared)]})
        observations.append({"name": SIDEBANDS, "data": bins.sideband.tolist()})
    measurement = {"name": name, "config": {"poi": "mu", "parameters": parameters}}
    return {"channels": channels, "observations": observations, "measurements": [measurement], "version": "1.0.0"}


def _modifier(name: str, kind: str, data: Any = None) -> dict[str, Any]:
    return {"name": name, "type": kind, "data": data.tolist() if isinstance(data, np.ndarray) else data}


def _sample(name: str, data: np.ndarray, modifiers: list[dict[str, Any]]) -> dict[str, Any]:
    return {"name": name, "data": data.tolist(), "modifiers": modifiers}


def _lognormal(error: float) -> dict[str, float]:
    return {"hi": 1 + error, "lo": 1 / (1 + error)}


class Fits:
    """Fits of a workspace: the likelihood is pyhf's, minimised with gradients from one call at many points."""

    def __init__(self, spec: dict[str, Any]) -> None:
        import pyhf  # half a second, which most commands do not need

        pyhf.set_backend("numpy")
        book = pyhf.Workspace(spec)
        self.model = book.model()
        self.data = np.asarray(book.data(self.model), float)
        self.poi = self.model.config.poi_index
        self._many = book.model(batch_size=2 * self.model.config.npars + 1)

    def profile(self, mu: float | None, data: np.ndarray | None = None) -> tuple[float, np.ndarray]:
        """Smallest -2 ln L at a signal strength, or at any (None), and all parameters there.

        Raises:
            ArithmeticError: the fit does not converge.
        """
        data, config = self.data if data is None else data, self.model.config
        low, high = np.array(config.suggested_bounds(), float).T
        at = np.array(config.suggested_init(), float)
        fixed = np.array(config.suggested_fixed(), bool)
        if mu is not None:
            at[self.poi], fixed[self.poi] = mu, True
        free = np.flatnonzero(~fixed)
        low, high, k = low[free], high[free], np.arange(len(free))
        if not len(free):
            return -2 * float(self.model.logpdf(at, data)[0]), at

        def value(x: np.ndarray) -> tuple[float, np.ndarray]:
            above, below = np.minimum(x + STEP, high), np.maximum(x - STEP, low)
            points = np.tile(at, (2 * len(at) + 1, 1))
            points[:, free] = x
            points[2 * k + 1, free], points[2 * k + 2, free] = above, below
            found = -2 * self._many.logpdf(points, data)
            return found[0], (found[2 * k + 1] - found[2 * k + 2]) / (above - below)

        start = np.clip(at[free], low, high)
        how = {"jac": True, "bounds": np.c_[low, high], "method": "SLSQP"}
        best = optimize.minimize(value, start, **how, options={"ftol": 1e-9, "maxiter": 500})
        if not best.success or not np.isfinite(best.fun):
            raise ArithmeticError(f"the likelihood fit did not converge: {best.message}")
        at[free] = best.x
        return float(best.fun), at

    @cached_property
    def free(self) -> tuple[float, np.ndarray]:
        """The best fit."""
        return self.profile(None)

    @cached_property
    def null(self) -> tuple[float, np.ndarray]:
        """The best fit without a signal."""
        return self.profile(0.0)

    @property
    def mu(self) -> float:
        """The best strength, not negative."""
        return float(self.free[1][self.poi])

    @property
    def z(self) -> float:
        """Discovery significance sqrt(q0) in sigma; 0 of a deficit."""
        return float(np.sqrt(max(0.0, self.null[0] - self.free[0])))
