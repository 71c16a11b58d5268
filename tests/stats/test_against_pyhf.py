"""q0, p0 and CLs against pyhf on the same models."""

from __future__ import annotations

import numpy as np
import pyhf
import pytest

from raypipe.stats import massfit
from raypipe.stats.backgrounds import family, template_family
from raypipe.stats.binned import Binned
from raypipe.stats.bins import Bins
from raypipe.stats.likelihood import Component
from raypipe.stats.limits import cls, q_mu_tilde
from raypipe.stats.shape import make_shape


@pytest.fixture(autouse=True)
def _minuit():
    pyhf.set_backend("numpy", "minuit")
    yield
    pyhf.set_backend("numpy", "scipy")


def bins(counts: np.ndarray) -> Bins:
    edges = np.arange(len(counts) + 1.0)
    return Bins(edges[:-1], edges[1:], counts, np.ones(len(counts)), None, (0.0, float(len(counts))))


def pyhf_model(signal, background, error=None, higgs=None, higgs_error=0.1):
    modifiers = [{"name": "norm", "type": "normfactor", "data": None}]
    if error is not None:
        modifiers.append({"name": "mc", "type": "staterror", "data": list(error)})
    samples = [
        {"name": "s", "data": list(signal), "modifiers": [{"name": "mu", "type": "normfactor", "data": None}]},
        {"name": "b", "data": list(background), "modifiers": modifiers},
    ]
    parameters = [{"name": "mu", "bounds": [[-50.0, 200.0]], "inits": [1.0]}]
    if higgs is not None:
        samples.append(
            {"name": "h", "data": list(higgs), "modifiers": [{"name": "lumi", "type": "lumi", "data": None}]}
        )
        parameters.append(
            {"name": "lumi", "auxdata": [1.0], "sigmas": [higgs_error], "bounds": [[0.0, 3.0]], "inits": [1.0]}
        )
    return pyhf.Model(
        {
            "channels": [{"name": "c", "samples": samples}],
            "parameters": parameters,
            "measurements": [],
        },
        poi_name="mu",
        validate=False,
    )


def compare(problem, template, model, counts, mus):
    """Both programs on q0, p0, and CLs at several yields."""
    fit = massfit.fit_signal(problem, template, problem)
    data = list(counts) + model.config.auxdata
    q0 = pyhf.infer.test_statistics.q0(
        0.0,
        data,
        model,
        model.config.suggested_init(),
        [(0.0, b[1]) if k == model.config.poi_index else b for k, b in enumerate(model.config.suggested_bounds())],
        model.config.suggested_fixed(),
    )
    assert fit.q0 == pytest.approx(float(q0), abs=1e-3)
    bounds = model.config.suggested_bounds()
    bounds[model.config.poi_index] = (0.0, 200.0)
    p0 = pyhf.infer.hypotest(0.0, data, model, test_stat="q0", par_bounds=bounds)
    # Below nought pyhf's minimiser leaves q0 at some 1e-5 instead of 0, which its square root magnifies.
    assert fit.p0 == pytest.approx(float(p0), abs=1e-3 if fit.s > 0 else 3e-3)
    curve = massfit.Profile(problem.with_signal(template), {0.0: fit.null.theta})
    asimov = massfit.Profile(massfit.asimov_data(problem.with_signal(template), fit.null), {0.0: fit.null.theta})
    for mu in mus:
        q = q_mu_tilde(curve, fit.s, fit.best.value, mu)
        ours = cls(q, asimov(mu) - asimov(0.0))
        theirs = pyhf.infer.hypotest(mu, data, model, test_stat="qtilde", par_bounds=bounds)
        assert ours == pytest.approx(float(theirs), abs=1e-3), mu
    assert fit.limit is not None
    at_limit = pyhf.infer.hypotest(fit.limit.observed, data, model, test_stat="qtilde", par_bounds=bounds)
    assert float(at_limit) == pytest.approx(0.05, abs=1e-3)
    return fit


@pytest.mark.parametrize("first", [18.0, 12.0, 9.0, 5.0])
def test_on_off_counting(first):
    """One counted bin over a background that nine other bins determine: excess, none, deficit."""
    counts = np.r_[first, np.full(9, 10.0)]
    data = bins(counts)
    problem = Binned(make_shape(family("flat", 0, 10), data), counts[None], np.zeros(1, int), data.scale)
    template = np.r_[1.0, np.zeros(9)]
    fit = compare(problem, template, pyhf_model(template, np.full(10, 10.0)), counts, [2.0, 6.0, 15.0])
    # With the background saturated by the other bins, s is what is left.
    assert fit.s == pytest.approx(first - 10.0, abs=1e-2)


@pytest.mark.parametrize("seed", range(2))
def test_template_with_statistical_errors_and_a_constrained_peak(seed):
    """Barlow-Beeston-lite is pyhf's staterror, the constrained peak its lumi modifier."""
    rng = np.random.default_rng(seed)
    expected = 60 * np.exp(-np.arange(12) / 6)
    error = expected * rng.uniform(0.05, 0.3, 12)
    higgs = 12 * np.exp(-0.5 * ((np.arange(12) - 8) / 1.0) ** 2)
    signal = np.exp(-0.5 * ((np.arange(12) - 4) / 1.0) ** 2)
    counts = rng.poisson(1.1 * expected + higgs + 10 * signal * (seed == 0)).astype(float)
    data = bins(counts)
    problem = Binned(
        make_shape(template_family(0, 0, 12), data, expected),
        counts[None],
        np.zeros(1, int),
        data.scale,
        components=(Component("higgs", higgs / higgs.sum(), higgs.sum(), 0.15 * higgs.sum()),),
        template_error=error / expected,
    )
    model = pyhf_model(signal, expected, error, higgs, 0.15)
    compare(problem, signal, model, counts, [8.0])


@pytest.mark.parametrize("first", [24.0, 12.0])
def test_spurious_signal_is_a_constrained_yield_of_the_same_shape(first):
    """A sample of the signal's shape whose size is Gaussian about nought: pyhf's histosys of plus and minus sigma."""
    counts, spurious = np.r_[first, first / 2, np.full(8, 10.0)], 3.0
    data, template = bins(counts), np.r_[0.6, 0.4, np.zeros(8)]
    problem = Binned(make_shape(family("flat", 0, 10), data), counts[None], np.zeros(1, int), data.scale)
    fit = massfit.fit_signal(problem, template, problem, spurious=spurious)
    spec = pyhf_model(template, np.full(10, 10.0)).spec
    size = {"hi_data": list(spurious * template), "lo_data": list(-spurious * template)}
    feigned = {"name": "feigned", "data": [0.0] * 10, "modifiers": [{"name": "ss", "type": "histosys", "data": size}]}
    samples = [*spec["channels"][0]["samples"], feigned]
    model = pyhf.Model(spec | {"channels": [{"name": "c", "samples": samples}]}, poi_name="mu", validate=False)
    observed, bounds = list(counts) + model.config.auxdata, model.config.suggested_bounds()
    bounds[model.config.poi_index] = (0.0, 200.0)
    p0 = pyhf.infer.hypotest(0.0, observed, model, test_stat="q0", par_bounds=bounds)
    assert fit.p0 == pytest.approx(float(p0), abs=1e-3)
    at_limit = pyhf.infer.hypotest(fit.limit.observed, observed, model, test_stat="qtilde", par_bounds=bounds)
    assert float(at_limit) == pytest.approx(0.05, abs=1e-3)
    without = massfit.fit_signal(problem, template, problem)
    assert fit.q0_alone == pytest.approx(without.q0)
    assert (fit.s, fit.s_err) == pytest.approx((without.s, np.hypot(without.s_err, spurious)))
    assert fit.limit.observed > 1.03 * without.limit.observed
