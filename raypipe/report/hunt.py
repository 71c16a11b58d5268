"""Figure of a bump hunt: the spectrum with its fits, and the local significance against mass."""

import numpy as np
from matplotlib.figure import Figure

from raypipe.report.style import Picture
from raypipe.stats.hunt import HuntResult
from raypipe.stats.significance import in_words

SIGMAS = (1, 2, 3, 4, 5)


def figure(hunt: HuntResult, title: str = "") -> Figure:
    """Contents per unit of mass, background-only fit and best peak; below, signed local significance of every width."""
    page = Picture(figsize=(7.2, 7.0), layout="constrained")
    top, bottom = page.subplots(2, 1, sharex=True, height_ratios=(3, 2))
    bins = hunt.bins
    centres, widths = (bins.low + bins.high) / 2, bins.high - bins.low
    errors = np.sqrt(bins.variance) / widths
    top.errorbar(centres, bins.counts / widths, errors, fmt="o", ms=2.5, lw=0.8, color="black", label="data")
    top.plot(centres, hunt.background / widths, color="#3f90da", lw=1.3, label="background only")
    best = hunt.row["best"]
    label = f"with a peak at {best['mass']:.5g}"
    top.plot(centres, hunt.best / widths, color="#bd1f01", lw=1.1, ls="--", label=label)
    positive = bins.counts[bins.counts > 0] / widths[bins.counts > 0]
    if len(positive) and (bins.counts >= 0).all() and positive.max() > 30 * positive.min():
        top.set_yscale("log")
        top.set_ylim(0.5 * positive.min(), None)
    top.set(ylabel="events per unit of mass", title=title)
    top.legend(fontsize=8)
    for k, width in enumerate(hunt.widths):
        style = "-" if len(hunt.masses) > 1 else "o"
        bottom.plot(hunt.masses, hunt.r[k], style, lw=1.1, ms=4, label=f"width {width}")
    for level in SIGMAS:
        if level <= max(3.0, np.nanmax(hunt.r) + 1):
            bottom.axhline(level, color="grey", ls=":", lw=0.7)
    bottom.axhline(0, color="black", lw=0.7)
    bottom.set(xlabel="mass", ylabel="local significance (signed)")
    quote = hunt.row["quote"]
    note = f"to quote: global {in_words(quote)} ({quote['key'].removeprefix('global.')}); "
    note += f"largest local excess {best['z']:.2f}σ at {best['mass']:.5g}"
    bottom.set_title(note, fontsize=9)
    bottom.legend(fontsize=8)
    return page
