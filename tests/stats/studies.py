"""Studies of the peak fit and the bump hunt over many toys, as functions that return JSON-ready numbers."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
from scipy import stats

from raypipe.events.masses import Masses
from raypipe.events.spectra import Spectrum
from raypipe.stats.backgrounds import family
from raypipe.stats.binned import Binned
from raypipe.stats.bins import Bins
from raypipe.stats.hunt import Hunt, hunt
from raypipe.stats.peakfit import PeakFit, fit_peak
from raypipe.stats.peaks import Gaussian
from raypipe.stats.scan import scan
from raypipe.stats.shape import make_shape
from raypipe.stats.widths import Width

LOW, HIGH, SLOPE = 105.0, 160.0, 25.0
PEAK = Gaussian(125.0, 1.5)
EDGES = np.linspace(LOW, HIGH, 56)
FITS = (("exp", 2000, 55), ("exp", 500, None), ("poly:3", 2000, 55), ("dijet:4", 20_000, 220))
"""Background, events and bins (None: unbinned) of the pull study."""


def draw(n: float, s: float, rng: np.random.Generator) -> Masses:
    u = rng.random(rng.poisson(n))
    m = LOW - SLOPE * np.log(1 - u * (1 - np.exp(-(HIGH - LOW) / SLOPE)))
    return Masses(np.r_[m, rng.normal(PEAK.mass, PEAK.width, rng.poisson(s))], None, "toy")


def shape(total: float) -> np.ndarray:
    expected = -np.diff(np.exp(-EDGES / SLOPE))
    return total * expected / expected.sum()


def pulls(toys: int) -> list[dict[str, Any]]:
    """Pull of the fitted yield, failures and CPU time of every kind of fit, without signal."""
    rows = []
    for background, events, bins in FITS:
        rng = np.random.default_rng(events + (bins or 0))
        values, roots, failed, start = [], [], 0, time.process_time()
        for _ in range(toys):
            row = fit_peak(
                draw(events, 0, rng),
                PeakFit(window=(LOW, HIGH), background=background, peak=PEAK, bins=bins, level=None),
            )
            failed += not row["valid"]
            values.append(row["s"] / row["s_err"])
            roots.append(row["z_signed"])
        rows.append(
            {
                "background": background,
                "events": events,
                "bins": bins,
                "toys": toys,
                "failed": failed,
                "mean": float(np.mean(values)),
                "width": float(np.std(values)),
                "signed_root_ks_p": float(stats.kstest(roots, "norm").pvalue),
                "cpu_seconds_per_fit": (time.process_time() - start) / toys,
            }
        )
    return rows


def local_p(toys: int) -> list[dict[str, Any]]:
    """Uniformity of the local p-value at many masses (Kolmogorov-Smirnov), edges included; share of q0 = 0."""
    rng = np.random.default_rng(21)
    counts = rng.poisson(shape(5000), (toys, 55)).astype(float)
    bins = Bins(EDGES[:-1], EDGES[1:], counts[0], np.ones(55), None, (LOW, HIGH))
    problem = Binned(make_shape(family("exp", LOW, HIGH), bins), counts[:1], np.zeros(1, int), bins.scale)
    masses = np.array([106.5, 110.0, 125.0, 140.0, 158.5])
    templates = np.array([Gaussian(m, 1.5).integral(EDGES[:-1], EDGES[1:]) for m in masses])
    found = scan(problem, counts, templates, problem.shape.start, one_sided=False)
    return [
        {
            "mass": float(m),
            "toys": toys,
            "ks_p": float(stats.kstest(stats.norm.sf(found.r[:, g]), "uniform").pvalue),
            "share_at_zero": float((found.q0[:, g] == 0).mean()),
            "failed": int(found.failed.sum()),
        }
        for g, m in enumerate(masses)
    ]


def linearity(toys: int) -> list[dict[str, Any]]:
    """Fitted against injected yield, and the share of toys whose error covers the truth."""
    rows = []
    for injected in (0.0, 25.0, 50.0, 100.0, 200.0):
        rng = np.random.default_rng(int(injected) + 31)
        template = PEAK.integral(EDGES[:-1], EDGES[1:])
        counts = rng.poisson(shape(5000) + injected * template, (toys, 55)).astype(float)
        bins = Bins(EDGES[:-1], EDGES[1:], counts[0], np.ones(55), None, (LOW, HIGH))
        problem = Binned(make_shape(family("exp", LOW, HIGH), bins), counts[:1], np.zeros(1, int), bins.scale)
        found = scan(problem, counts, template[None], problem.shape.start, one_sided=False)
        s, error = found.s[:, 0], found.s_err[:, 0]
        rows.append(
            {
                "injected": injected,
                "toys": toys,
                "fitted": float(s.mean()),
                "error_of_mean": float(s.std() / np.sqrt(toys)),
                "coverage_68": float((np.abs(s - injected) < error).mean()),
            }
        )
    return rows


def limits(toys: int) -> list[dict[str, Any]]:
    """Share of 95 % CLs limits above the true yield: at least 95 %, more where there is no sensitivity."""
    rows = []
    for injected in (0.0, 60.0):
        rng = np.random.default_rng(int(injected) + 41)
        found = [
            fit_peak(draw(2000, injected, rng), PeakFit(window=(LOW, HIGH), peak=PEAK, bins=55)) for _ in range(toys)
        ]
        above = [row["upper_limit"] > injected for row in found]
        rows.append(
            {
                "injected": injected,
                "toys": toys,
                "coverage_95": float(np.mean(above)),
                "median_limit": float(np.median([row["upper_limit"] for row in found])),
                "median_expected_limit": float(np.median([row["expected_limit"] for row in found])),
            }
        )
    return rows


def global_p(sets: int, toys: int) -> dict[str, Any]:
    """Global p-values of background-only data sets, each from toys of its own fit: uniform if they are right."""
    rng = np.random.default_rng(51)
    by_toys, asymptotic = [], []
    for k in range(sets):
        data = Spectrum(EDGES[:-1], EDGES[1:], rng.poisson(shape(5000)).astype(float), None, "toy")
        row = hunt(data, Hunt(window=(LOW, HIGH), widths=[Width(1.5)], points=50, toys=toys, seed=k, level=None)).row[
            "global"
        ]
        by_toys.append(row["toys"]["p"])
        asymptotic.append(row["asymptotic"]["p"])
    small = np.array(by_toys) < 0.3
    return {
        "sets": sets,
        "toys": toys,
        "ks_p": float(stats.kstest(by_toys, "uniform").pvalue),
        "asymptotic_over_toys_below_0.3": float(np.mean(np.array(asymptotic)[small] / np.array(by_toys)[small])),
    }
