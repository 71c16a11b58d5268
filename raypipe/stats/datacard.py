"""A likelihood of score bins as a datacard of Combine: every bin of every region is a counting channel, no shapes."""

from collections.abc import Sequence

import numpy as np

from raypipe.stats.workspace import ScoreBins

NUMBER = {"signal": 0, "continuum": 1, "higgs": 2}


def datacard(bins: ScoreBins, comment: str) -> str:
    """The card; ``kappa<i>`` floats in ``sr<i>`` and sidebands ``sb<i>``; template statistics are log-normal here."""
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
    return "\n".join(map(_line, rows)) + "\n"


def _line(cells: Sequence[str | int | float]) -> str:
    return " ".join(cell if isinstance(cell, str) else f"{cell:.10g}" for cell in cells)
