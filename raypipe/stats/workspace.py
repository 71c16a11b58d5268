"""One likelihood of all bins of a score: a HistFactory model (pyhf), and its discovery significance.

In bin i of the background percentile, with c continuum, h Higgs and s signal events expected in the signal region, and
t template events beside the sidebands' data,

    n_i ~ Poisson( g_i (k_i f c_i + y h_i) + mu s_i )          m_i ~ Poisson( k_i t_i )

k: free and shared between the regions, what the template gets wrong where the classifier selects; g: statistics of the
template (of both regions), of the Higgs simulation, and the transfer of k, Gaussian; f, y: normalisation and Higgs
yield, log-normal. Test statistics and asymptotics: 1007.1727.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from scipy import optimize

from raypipe.errors import UserError

PREFIX = "likelihood_"
STEP = 1e-5
"""Of parameters of order one, in the differences that make a gradient."""


@dataclass(frozen=True)
class ScoreBins:
    """Counts and expectations, (k,) each, the most signal-like bin first; (1,) the last two, of all bins."""

    edges: np.ndarray  # (k + 1,) background percentiles from 0 to 1
    observed: np.ndarray
    continuum: np.ndarray
    template_error: np.ndarray  # relative
    higgs: np.ndarray
    higgs_error: np.ndarray  # of the simulation, events
    signal: np.ndarray  # at mu = 1
    sideband: np.ndarray  # empty without sidebands, as
    sideband_template: np.ndarray
    normalisation: np.ndarray  # relative error of the continuum, infinite where it is free
    higgs_uncertainty: np.ndarray  # relative error of the yield

    def arrays(self) -> dict[str, np.ndarray]:
        """For a ledger."""
        return {PREFIX + field.name: getattr(self, field.name) for field in fields(self)}

    @classmethod
    def of(cls, arrays: Mapping[str, np.ndarray]) -> ScoreBins:
        """What `arrays` gave."""
        return cls(*(arrays[PREFIX + field.name] for field in fields(cls)))


def workspace(bins: ScoreBins) -> dict[str, Any]:
    """The model and its data as a pyhf workspace with one measurement; its parameter of interest is ``mu``."""
    largest = 2 * (bins.observed.sum() + bins.continuum.sum() + 10) / bins.signal.sum()
    parameters = [named("mu", inits=[1.0], bounds=[[0.0, float(largest)]])]
    parameters.append(named("template", bounds=[[0.02, 10.0]] * len(bins.observed)))
    norm, error = _lognormal(bins.normalisation[0]), (bins.template_error * bins.continuum).tolist()
    continuum = [named("template", type="staterror", data=error)]
    continuum.append(named("normalisation", type="normsys" if norm else "normfactor", data=norm))
    higgs = [named("template", type="staterror", data=bins.higgs_error.tolist())]
    higgs.append(named("higgs_yield", type="normsys", data=_lognormal(bins.higgs_uncertainty[0])))
    shared = [named("kappa", type="shapefactor", data=None)] if len(bins.sideband) else []
    mu = [named("mu", type="normfactor", data=None)]
    samples = [named("signal", data=bins.signal.tolist(), modifiers=mu)]
    samples.append(named("continuum", data=bins.continuum.tolist(), modifiers=shared + continuum))
    samples += [named("higgs", data=bins.higgs.tolist(), modifiers=higgs)] if bins.higgs.any() else []
    channels = [named("signal_region", samples=samples)]
    observations = [named("signal_region", data=bins.observed.tolist())]
    if len(bins.sideband):
        kappa, side = bins.sideband / bins.sideband_template, bins.sideband_template.tolist()
        parameters.append(named("kappa", inits=kappa.tolist(), bounds=np.c_[kappa / 20, kappa * 20].tolist()))
        channels.append(named("sidebands", samples=[named("continuum", data=side, modifiers=shared)]))
        observations.append(named("sidebands", data=bins.sideband.tolist()))
    measurements = [named("search", config={"poi": "mu", "parameters": parameters})]
    return {"channels": channels, "observations": observations, "measurements": measurements, "version": "1.0.0"}


def named(name: str, **rest: Any) -> dict[str, Any]:
    return {"name": name, **rest}


def _lognormal(error: float) -> dict[str, float] | None:
    """None if anything is possible."""
    return {"hi": 1 + float(error), "lo": 1 / (1 + float(error))} if np.isfinite(error) else None


class Fits:
    """Fits of a workspace: the likelihood is pyhf's, minimised with gradients from one call at many points.

    ``z``: discovery significance sqrt(q0) in sigma, 0 of a deficit; ``mu``: best strength; ``least``: its -2 ln L;
    ``null``: parameters without a signal. A fit that does not converge is a `UserError`.
    """

    def __init__(self, spec: dict[str, Any]) -> None:
        import pyhf  # half a second, which most commands do not need

        pyhf.set_backend("numpy")
        book = pyhf.Workspace(spec)
        self.model = book.model()
        self.data = np.asarray(book.data(self.model), float)
        self._many = book.model(batch_size=2 * self.model.config.npars + 1)
        without, self.null = self.profile(0.0)
        self.least, best = self.profile(None)
        self.mu, self.z = float(best[self.model.config.poi_index]), math.sqrt(max(0.0, without - self.least))

    def profile(self, mu: float | None, data: np.ndarray | None = None) -> tuple[float, np.ndarray]:
        """Smallest -2 ln L at a signal strength, or at any (None), and all parameters there."""
        data, config = self.data if data is None else data, self.model.config
        at, fixed = np.array(config.suggested_init(), float), np.array(config.suggested_fixed(), bool)
        if mu is not None:
            at[config.poi_index], fixed[config.poi_index] = mu, True
        free = np.flatnonzero(~fixed)
        low, high = np.array(config.suggested_bounds(), float)[free].T
        up, down = 1 + 2 * np.arange(len(free)), 2 + 2 * np.arange(len(free))

        def value(x: np.ndarray) -> tuple[float, np.ndarray]:
            above, below = np.minimum(x + STEP, high), np.maximum(x - STEP, low)
            points = np.tile(at, (2 * len(at) + 1, 1))
            points[:, free] = x
            points[up, free], points[down, free] = above, below
            found = -2 * self._many.logpdf(points, data)
            with np.errstate(invalid="ignore"):  # where a step went too far all are infinite, and it is taken back
                return found[0], (found[up] - found[down]) / (above - below)

        how = {"jac": True, "bounds": np.c_[low, high], "method": "SLSQP", "options": {"ftol": 1e-9, "maxiter": 500}}
        best = optimize.minimize(value, np.clip(at[free], low, high), **how)
        if not best.success or not np.isfinite(best.fun):
            raise UserError(f"the likelihood fit did not converge: {best.message}")
        at[free] = best.x
        return float(best.fun), at
