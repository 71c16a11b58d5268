"""Global-p toys of a bump hunt: all at once against one by one with iminuit."""

from __future__ import annotations

import time

import numpy as np

from raypipe.bench.base import Measurement, speed_up
from raypipe.stats import massfit
from raypipe.stats.backgrounds import family
from raypipe.stats.binned import Binned
from raypipe.stats.peaks import Gaussian
from raypipe.stats.scan import draw_toys, scan
from raypipe.stats.shape import make_shape
from raypipe.stats.spectrum import Bins

LOW, HIGH, SIGMA, BINS, EVENTS = 105.0, 160.0, 1.5, 110, 10_000


def spectrum() -> tuple[Binned, np.ndarray]:
    """A diphoton-like exponential spectrum, half-GeV bins, and its background-only minimum."""
    edges = np.linspace(LOW, HIGH, BINS + 1)
    shape = -np.diff(np.exp(-edges / 30))
    counts = np.random.default_rng(1).poisson(EVENTS * shape / shape.sum()).astype(float)
    bins = Bins(edges[:-1], edges[1:], counts, np.ones(BINS), None, (LOW, HIGH))
    problem = Binned(make_shape(family("exppoly:2", LOW, HIGH), bins), counts[None], np.zeros(1, int), bins.scale)
    return problem, massfit.fit(problem, problem.shape.start, "background").theta


def one_by_one(problem: Binned, counts: np.ndarray, templates: np.ndarray, start: np.ndarray) -> np.ndarray:
    """What a careful user would write: MIGRAD with an analytic gradient, warm started, on a plain NumPy likelihood.

    The background is fitted once a toy, the signal fit starts from it, and toys are judged by q0 alone, so nothing is
    computed that the batched way does not compute.
    """
    from iminuit import Minuit

    shape, scale = problem.shape, problem.scale

    def migrad(n: np.ndarray, template: np.ndarray | None, start: np.ndarray) -> Minuit:
        def mean(x: np.ndarray) -> np.ndarray:
            background = shape.expected(x[None, : shape.size])[0]
            return background if template is None else background + x[-1] * template

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
            minuit.errors[-1] = 10.0
            minuit.limits[-1] = (0, None)
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
    shape = problem.shape
    edges = np.r_[LOW, np.linspace(LOW, HIGH, BINS + 1)[1:]]
    templates = np.array([Gaussian(m, SIGMA).integral(edges[:-1], edges[1:]) for m in masses])
    counts = np.concatenate([block for block, _ in draw_toys(problem, theta, toys, 1)])
    ours, reference, cpu, difference, failed = [], [], [], 0.0, 0
    for _ in range(repeats):
        wall, busy = time.perf_counter(), time.process_time()
        batched = scan(problem, counts, templates, theta)
        ours.append(time.perf_counter() - wall)
        cpu.append(time.process_time() - busy)
        wall = time.perf_counter()
        plain = one_by_one(problem, counts[:alone], templates, theta)
        reference.append((time.perf_counter() - wall) * toys / alone)
        difference = max(difference, float(np.abs(plain - batched.q0[:alone]).max()))
        failed = int(batched.failed.sum())
    return [
        speed_up(
            "fits",
            ours,
            reference,
            target=20.0,
            toys=toys,
            masses=len(masses),
            bins=BINS,
            events=EVENTS,
            background=shape.family.name,
            cpu_seconds=cpu,
            failed_toys=failed,
            largest_q0_difference=difference,
            reference_measured_on=f"{alone} toys x {len(masses)} masses, scaled to {toys}; one core each",
            seconds_allowed=60.0,
        )
    ]
