"""Figures 1 to 5 of paper B, the tables of limits and calibration, and the page."""

from itertools import product
from typing import Any

import numpy as np
import pyarrow as pa
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from raypipe.config.multilepton import MultileptonConfig
from raypipe.events.table import write_table
from raypipe.report.base import Report, page_of
from raypipe.report.html import Table, plus_minus, resource, table_of
from raypipe.report.style import CYCLE, new_figure
from raypipe.search.base import Found
from raypipe.search.exclusion import Values, analyse, sign
from raypipe.search.multilepton import Tables
from raypipe.search.multilepton_search import Multilepton
from raypipe.search.result import NO_SIGNAL
from raypipe.stats.calibration import bands, p_value

PANELS = {"mean_loss": "mean loss", "mean_score": "mean score"}
PANELS |= {"std_score": "standard deviation of scores", "max_score": "max score"}
"""The paper's four statistics in the places of its figures 2 to 5."""
PAPER_LIMITS = {
    "mlc": {125: "0.8 +0.7 −0.2", 150: "0.8 +0.7 −0.2", 250: "0.4 +0.1 −0.3"},
    "bce": {125: "1.2 ± 0.2", 150: "1.2 ± 0.2", 250: "0.4 ± 0.2"},
}
"""95 % limits in fb quoted in section 4 of the paper, by loss and parent mass in GeV."""

TABLES = resource("texts")["multilepton"]["tables"]
UNITS = list(product(("crossing", "cls"), ("events", "fb")))


def spectra(tables: Tables, config: MultileptonConfig) -> Figure:
    """Figure 1: each feature of the background and of the signals."""
    figure, axes = new_figure(len(config.features), 4.6, 3.7)
    pool = tables.nature if len(tables.nature) else tables.null
    weights = pool.weight / pool.weight.sum() * tables.expected
    for k, (name, axis) in enumerate(zip(config.features, axes, strict=True)):
        x = pool.values[:, k]
        edges = np.linspace(*np.quantile(x, [0.0005, 0.995]), 61)
        axis.stairs(np.histogram(x, edges, weights=weights)[0], edges, color="0.8", fill=True, label="background")
        if tables.data is not None:
            counts, _ = np.histogram(tables.data[:, k], edges)
            axis.errorbar((edges[1:] + edges[:-1]) / 2, counts, np.sqrt(counts), fmt="k.", ms=3, lw=0.7, label="data")
        for colour, (signal, events) in zip(CYCLE, tables.signals.items(), strict=False):
            scale = np.full(len(events), tables.expected / 5 / max(1, len(events)))
            axis.stairs(np.histogram(events.values[:, k], edges, weights=scale)[0], edges, color=colour, label=signal)
        axis.set(xlabel=f"{name} [GeV]" if name.startswith("m_") else name, ylabel="events / bin", yscale="log")
        axis.set_ylim(0.3, None)
    axes[0].legend(fontsize=7)
    return figure


def responses(values: Values, loss: str, largest: float) -> Figure:
    """Figures 2 to 5: the four statistics against injected events, up to ``largest``."""
    figure, axes = new_figure(4, 4.8, 3.7, 2)
    luminosity = values.config.compare.luminosity
    for (name, title), axis in zip(PANELS.items(), axes, strict=True):
        null = values.null((loss, name))
        _response(axis, values, (loss, name), null[np.isfinite(null)], largest)
        axis.set(xlabel="injected signal events", ylabel=title, xlim=(0, largest))
        axis.tick_params(axis="x", which="both", top=False)
        upper = axis.secondary_xaxis("top", functions=(lambda n: n / luminosity, lambda fb: fb * luminosity))
        upper.set_xlabel("cross section x acceptance [fb]")
    axes[0].legend(fontsize=7)
    return figure


def _response(axis: Axes, values: Values, test: tuple[str, str], null: np.ndarray, largest: float) -> None:
    found = bands(null)
    axis.axhspan(found["low_2"], found["high_2"], color="#ffdf00", lw=0, label="2σ")
    axis.axhspan(found["low_1"], found["high_1"], color="#5fd35f", lw=0, label="1σ")
    axis.axhline(found["median"], color="k", lw=0.6, ls=":")
    shown = [found["low_2"], found["high_2"]]
    for colour, signal in zip(CYCLE, values.config.scan.signals, strict=False):
        injected = values.injected(signal, test)
        good = np.isfinite(injected).all(1)
        if not good.any():
            continue
        x, y = np.r_[0, values.strengths[good]], np.r_[null.mean(), injected[good].mean(1)]
        spread = np.r_[null.std(ddof=1), injected[good].std(1, ddof=1)]
        axis.plot(x, y, "o-", ms=2.5, lw=1.1, color=colour, label=signal)
        axis.fill_between(x, y - spread, y + spread, color=colour, alpha=0.25, lw=0)
        inside = x <= largest * 1.0001
        shown += [(y - spread)[inside].min(), (y + spread)[inside].max()]
    margin = 0.05 * (max(shown) - min(shown))
    axis.set_ylim(min(shown) - margin, max(shown) + margin)


def p_values(values: Values) -> Figure | None:
    """Cumulative shares of the p-values of background-only data sets, one line a test."""
    figure, (axis,) = new_figure(1, 5.4, 4.4)
    width = None
    for test in values.tests:
        both = values.null(test), values.of(NO_SIGNAL, 0.0, test, values.config.scan.calibration)
        null, checks = (sign(test) * x[np.isfinite(x)] for x in both)
        if min(len(checks), len(null)) >= 20:
            p = np.sort([p_value(t, null) for t in checks])
            axis.step(p, np.arange(1, len(p) + 1) / len(p), lw=0.9, where="post", label=" ".join(test))
            width = 1.358 * np.sqrt(1 / len(checks) + 1 / len(null))
    if width is None:
        return None
    axis.fill_between([0, 1], [-width, 1 - width], [width, 1 + width], color="0.9", lw=0)
    axis.plot([0, 1], [0, 1], "k:", lw=0.8)
    axis.set(xlabel="p", ylabel="share of data sets with a smaller p", xlim=(0, 1), ylim=(0, 1))
    axis.legend(fontsize=6)
    return figure


def figures_of_scan(config: MultileptonConfig, tables: Tables, rows: list[dict[str, Any]]) -> dict[str, Figure | None]:
    """The figures that the finished comparisons allow, by name."""
    values = Values(rows, config)
    figures: dict[str, Figure | None] = {"figure1": spectra(tables, config), "calibration": p_values(values)}
    if config.scan.signals and config.scan.strengths:
        largest = max(config.scan.strengths)
        for first, loss in ((2, "mlc"), (4, "bce")):
            if loss in config.networks.losses and np.isfinite(values.null((loss, "mean_loss"))).sum() >= 20:
                figures[f"figure{first}"] = responses(values, loss, largest)
                figures[f"figure{first + 1}"] = responses(values, loss, largest / config.scan.zoom)
    return dict(sorted(figures.items()))


def multilepton_report(search: Multilepton, found: Found) -> Report:
    """Limits, p-values of the data, calibration, and figures 1 to 5 of paper B; also ``rows.parquet``."""
    config = search.config
    pools, acceptance = search.pools(found.folder)
    sizes = {"reference": len(pools.reference), "null_pool": len(pools.null), "nature_pool": len(pools.nature)}
    counts = {"finished": len(found.good) // len(config.networks.losses), "planned": len(found.trials)}
    summary = {"acceptance": acceptance, "expected": pools.expected} | sizes | counts
    summary |= analyse(found.rows, config, acceptance)
    write_table(pa.Table.from_pylist(found.good), found.folder / "rows.parquet")
    shown, drawn = tables(summary), figures_of_scan(config, pools, found.rows)
    told = {"features": ", ".join(config.features), "luminosity": config.compare.luminosity}
    told["signals"] = ", ".join(config.scan.signals) or "none"
    page = page_of(search, found, shown, drawn, **told)
    return Report(summary, headlines(summary), shown, **page, metrics=metrics(summary))


def headlines(summary: dict[str, Any]) -> list[str]:
    """The verdict, and the few sentences that a reader should take away besides."""
    finished = f"{summary['finished']} of {summary['planned']} comparisons finished; {summary['bootstraps']} bootstraps"
    background = f"{summary['expected']:.0f} expected background events, reference of {summary['reference']}"
    verdict, combined = [], summary["combined"]
    if "data_p" in combined:
        verdict.append(f"The data: p = {combined['data_p']:.3f} of {combined['tests']} statistics combined.")
    if quoted := combined.get("calibration"):
        close = abs(quoted["type_i"] - 0.05) <= 2 * quoted["error"]
        rate = plus_minus(quoted["type_i"], quoted["error"], 3)
        told = f"p < 0.05 in a share of {rate} of {quoted['data_sets']} data sets without signal"
        verdict.append(f"The background model {'closes' if close else 'does NOT close'}: {told}.")
    lines = [f"{finished}; {background}."]
    return [" ".join(verdict), *lines] if verdict else lines


def _quoted(limit: dict[str, Any] | None, unit: str) -> str:
    found = (limit or {}).get(unit)
    if not found or found["value"] is None:
        return "-"
    digits = 2 if unit == "fb" else 0
    value, low, high = (plus_minus(found[k], None, digits, "?") for k in ("value", "low", "high"))
    return f"≤ {value}" if found["bound"] else f"{value} ({low}-{high})"  # below the smallest strength nothing is known


def _paper(loss: str, signal: str) -> str:
    """The paper's limit for the parent mass that a sample's name carries."""
    return next((limit for mass, limit in PAPER_LIMITS.get(loss, {}).items() if str(mass) in signal), "-")


def tables(summary: dict[str, Any]) -> dict[str, Table]:
    """By title, for the page and the terminal."""
    tests, combined = summary["tests"], summary["combined"]
    seen, checked = ([t for t in tests if name in t] for name in ("data", "calibration"))
    if seen:
        own = {"value": None, "p": combined["data_p"]}
        seen.append({"loss": "all", "statistic": f"{combined['tests']} combined", "data": own})
    if "calibration" in combined:
        own = combined["calibration"] | {"ks_p": None, "bootstraps": summary["bootstraps"]}
        checked.append({"loss": "all", "statistic": "combined", "calibration": own})
    limits = [
        {f"{kind} {unit}": _quoted((test["limits"][signal] or {}).get(kind), unit) for kind, unit in UNITS}
        | {"signal": signal, "paper": _paper(test["loss"], signal), **test}
        for signal, test in product(tests[0]["limits"], tests)
    ]
    parts = {"The data": seen, "95 % limits": limits, "Calibration without signal": checked}
    return {title: table_of(TABLES[title], rows) for title, rows in parts.items() if rows}


def metrics(summary: dict[str, Any]) -> dict[str, float]:
    """Flat numbers for MLflow."""
    out = {}
    for test in summary["tests"]:
        where = f"{test['loss']}.{test['statistic']}"
        if "data" in test:
            out[f"p.{where}"] = test["data"]["p"]
        if "calibration" in test:
            out[f"type_i.{where}"] = test["calibration"]["type_i"]
        for signal, limits in test["limits"].items():
            for kind, found in (limits or {}).items():
                if found["events"]["value"] is not None:
                    out[f"limit_events.{kind}.{where}.{signal}"] = found["events"]["value"]
    return out
