"""Global-p toys of a bump hunt: all at once against one by one with iminuit."""

from __future__ import annotations

import numpy as np
from iminuit import Minuit

from bench.base import CPU, WALL, Measurement, compared, in_turn, timed
from raypipe.stats import massfit
from raypipe.stats.backgrounds import family
from raypipe.stats.binned import Binned
from raypipe.stats.bins import Bins
from raypipe.stats.peakdata import binned_problem
from raypipe.stats.peaks import Gaussian
from raypipe.stats.scan import draw_toys, scan

LOW, HIGH, SIGMA, BINS, EVENTS = 105.0, 160.0, 1.5, 110, 10_000
EDGES = np.linspace(LOW, HIGH, BINS + 1)


def spectrum() -> tuple[Binned, np.ndarray]:
    """A diphoton-like exponential spectrum, half-GeV bins, and its background-only minimum."""
    shape = -np.diff(np.exp(-EDGES / 30))
    counts = np.random.default_rng(1).poisson(EVENTS * shape / shape.sum()).astype(float)
    bins = Bins(EDGES[:-1], EDGES[1:], counts, np.ones(BINS), None, (LOW, HIGH))
    problem = binned_problem(bins, family("exppoly:2", LOW, HIGH))
    return problem, massfit.fit(problem, problem.start, "background").theta


def one_by_one(problem: Binned, counts: np.ndarray, templates: np.ndarray, start: np.ndarray) -> np.ndarray:
    """What a careful user would write: MIGRAD with an analytic gradient, warm started, on a plain NumPy likelihood.

    The background is fitted once a toy, the signal fit starts from it, and toys are judged by q0 alone, so nothing is
    computed that the batched way does not compute.
    """
    shape, scale = problem.shape, problem.scale

    def migrad(n: np.ndarray, template: np.ndarray | None, start: np.ndarray) -> Minuit:
        def mean(x: np.ndarray) -> np.ndarray:
            return shape.expected(x[None, : shape.size])[0] + (0.0 if template is None else x[-1] * template)

        def cost(x: np.ndarray) -> float:
            mu = mean(x)
            return float(2 * ((mu - n * np.log(mu)) / scale).sum())

        def gradient(x: np.ndarray) -> np.ndarray:
            slope = 2 * (1 - n / mean(x)) / scale
            background = slope @ shape.jacobian(x[: shape.size])
            return background if template is None else np.r_[background, slope @ template]

        minuit = Minuit(cost, start, grad=gradient)
        minuit.errordef, minuit.strategy, minuit.errors = Minuit.LEAST_SQUARES, 0, np.full(len(start), 0.1)
        if template is not None:
            minuit.errors[-1], minuit.limits[-1] = 10.0, (0, None)
        return minuit.migrad()

    q0 = np.zeros((len(counts), len(templates)))
    for t, n in enumerate(counts):
        null = migrad(n, None, start)
        for g, template in enumerate(templates):
            best = migrad(n, template, np.r_[null.values, 1.0])
            q0[t, g] = max(0.0, null.fval - best.fval)
    return q0


def run(smoke: bool) -> list[Measurement]:
    """2000 toys at 50 masses batched; iminuit on a subsample of the toys in the same run, scaled to all of them."""
    toys, alone, repeats = (100, 2, 1) if smoke else (2000, 10, 3)
    problem, theta = spectrum()
    masses = np.linspace(LOW + SIGMA, HIGH - SIGMA, 50)
    templates = np.array([Gaussian(m, SIGMA).integral(EDGES[:-1], EDGES[1:]) for m in masses])
    counts = np.concatenate([block for block, _ in draw_toys(problem, theta, toys, 1)])
    (wall, reference), (batched, plain) = in_turn(
        repeats,
        WALL,
        lambda: timed(lambda: scan(problem, counts, templates, theta), CPU),
        lambda: one_by_one(problem, counts[:alone], templates, theta),
    )
    cpu, found = zip(*batched, strict=True)
    difference = max(float(np.abs(p - b.q0[:alone]).max()) for p, b in zip(plain, found, strict=True))
    detail = {"toys": toys, "masses": len(masses), "bins": BINS, "events": EVENTS, "cpu_seconds": cpu}
    detail |= {"background": problem.shape.family.name, "failed_toys": int(found[-1].failed.sum())}
    detail |= {"largest_q0_difference": difference, "seconds_allowed": 60.0}
    detail["reference_measured_on"] = f"{alone} toys x {len(masses)} masses, scaled to {toys}; one core each"
    return [compared("fits", wall, [t * toys / alone for t in reference], 20.0, **detail)]
