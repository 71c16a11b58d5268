"""Likelihoods as others read them: score bins as a datacard of Combine, fits of a peak as a workspace of pyhf."""

from typing import Any

import numpy as np

from raypipe.errors import UserError
from raypipe.stats.binned import Binned
from raypipe.stats.workspace import ScoreBins, named

NUMBER = {"signal": 0, "continuum": 1, "higgs": 2}


def datacard(bins: ScoreBins, comment: str) -> str:
    """Channels of counts; ``kappa<i>`` floats in ``sr<i>`` and sidebands ``sb<i>``; template statistics: log-normal."""
    regions, free = range(len(bins.observed)), not np.isfinite(bins.normalisation[0])
    rates = {(f"sr{k}", name): getattr(bins, name)[k] for k in regions for name in NUMBER}
    rates |= {(f"sb{k}", "continuum"): events for k, events in enumerate(bins.sideband_template)}
    rates = {column: events for column, events in rates.items() if events > 0 or column[1] != "higgs"}
    channels, observed = list(dict.fromkeys(channel for channel, _ in rates)), [*bins.observed, *bins.sideband]
    rows = [[f"# {comment}"], [f"imax {len(channels)}"], [f"jmax {len({p for _, p in rates}) - 1}"], ["kmax *"]]
    rows += [["bin", *channels], ["observation", *observed], ["bin", *(c for c, _ in rates)]]
    rows += [["process", *(p for _, p in rates)], ["process", *(NUMBER[p] for _, p in rates)]]
    rows += [["rate", *rates.values()]]
    spread = np.hypot(bins.template_error * bins.continuum, bins.higgs_error) / (bins.continuum + bins.higgs)
    errors = {f"template{k}": {(f"sr{k}", p): spread[k] for p in ("continuum", "higgs")} for k in regions}
    errors["higgs_yield"] = {(f"sr{k}", "higgs"): bins.higgs_uncertainty[0] for k in regions}
    if not free:
        errors["normalisation"] = {(f"sr{k}", "continuum"): bins.normalisation[0] for k in regions}
    for name, of in errors.items():
        cells = [1 + of[column] if of.get(column) else "-" for column in rates]
        rows += [[name, "lnN", *cells]] if set(cells) != {"-"} else []
    rows += [["normalisation", "rateParam", f"sr{k}", "continuum", 1, "[0,10]"] for k in regions if free]
    for k, kappa in enumerate(bins.sideband / bins.sideband_template):
        limits = f"[{kappa / 20:.6g},{kappa * 20:.6g}]"
        rows += [[f"kappa{k}", "rateParam", f"{region}{k}", "continuum", kappa, limits] for region in ("sr", "sb")]
    return "".join(" ".join(c if isinstance(c, str) else f"{c:.10g}" for c in cells) + "\n" for cells in rows)


def peak_workspace(problem: Binned, theta: np.ndarray, signal: np.ndarray, spurious: float = 0.0) -> dict[str, Any]:
    """A binned fit as a pyhf workspace: its parameter of interest ``s`` is the yield of ``signal`` (B,), a peak.

    The background is linear in its parameters about those of the fit, ``theta``: exact for polynomials. What is not
    plain counts is a `UserError`.
    """
    if problem.errors is not None or problem.squares is not None or (problem.scale != 1).any():
        raise UserError("--export: pyhf fits plain counts, these have weights or errors of their own")
    size, pulled = problem.shape.size, [("spurious", spurious * signal)] if spurious else []
    mean, bends = problem.shape.expected(theta[None, :size])[0], problem.shape.jacobian(theta[:size]).T
    free = {f"background{k}": bend for k, bend in enumerate(bends)}
    for known, at in zip(problem.components, theta[size:], strict=False):
        if np.isinf(known.error):
            mean, free[known.name] = mean + at * known.template, known.template
        else:
            mean, pulled = mean + known.expected * known.template, [*pulled, (known.name, known.error * known.template)]
    unit = {name: 1 / np.sqrt((part**2 / mean).sum()) for name, part in {**free, "s": signal}.items()}  # of error one
    moves = {name: {"hi_data": (mean + by).tolist(), "lo_data": (mean - by).tolist()} for name, by in pulled}
    modifiers = [named(name, type="histosys", data=move) for name, move in moves.items()]
    samples, s = [named("background", data=mean.tolist(), modifiers=modifiers)], max(float(theta[-1]), 0.0)
    for name, part in {**{name: unit[name] * bend for name, bend in free.items()}, "s": signal}.items():
        samples.append(named(name, data=part.tolist(), modifiers=[named(name, type="normfactor", data=None)]))
    parameters = [named("s", inits=[s], bounds=[[0.0, s + 20 * unit["s"]]])]
    parameters += [named(name, inits=[0.0], bounds=[[-20.0, 20.0]]) for name in free]
    counts = problem.counts[problem.data[0]].tolist()
    measurements = [named("fit", config={"poi": "s", "parameters": parameters})]
    book = {"channels": [named("window", samples=samples)], "observations": [named("window", data=counts)]}
    return book | {"measurements": measurements, "version": "1.0.0"}
