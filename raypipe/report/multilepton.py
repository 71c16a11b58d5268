"""Figures 1 to 5 of paper B, the tables of limits and calibration, and the page."""

from __future__ import annotations

from typing import Any

import matplotlib as mpl
import numpy as np
import pyarrow as pa
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from raypipe.config.multilepton import MultileptonConfig
from raypipe.events.table import write_table
from raypipe.report.base import Report
from raypipe.report.html import Section, Table, images, resource
from raypipe.report.style import save_figures
from raypipe.search.base import Found
from raypipe.search.exclusion import Values, analyse, sign
from raypipe.search.multilepton import Multilepton, Tables
from raypipe.search.result import NO_SIGNAL
from raypipe.stats.empirical import bands, p_value

PANELS = {
    "mean_loss": "mean loss",
    "mean_score": "mean score",
    "std_score": "standard deviation of scores",
    "max_score": "max score",
}
"""The paper's four statistics in the places of its figures 2 to 5."""

PAPER_LIMITS = {
    ("mlc", 125): "0.8 +0.7 −0.2",
    ("mlc", 150): "0.8 +0.7 −0.2",
    ("mlc", 250): "0.4 +0.1 −0.3",
    ("bce", 125): "1.2 ± 0.2",
    ("bce", 150): "1.2 ± 0.2",
    ("bce", 250): "0.4 ± 0.2",
}
"""95 % limits in fb quoted in section 4 of the paper, by loss and parent mass in GeV."""

TEXTS = resource("texts")["multilepton"]


def spectra(tables: Tables, config: MultileptonConfig) -> Figure:
    """Figure 1: each feature of the background and of the signals."""
    count = len(config.features)
    figure = Figure(figsize=(4.6 * min(count, 3), 3.7 * -(-count // 3)), layout="constrained")
    axes = figure.subplots(-(-count // 3), min(count, 3), squeeze=False)
    pool = tables.nature if len(tables.nature) else tables.null
    for k, (name, axis) in enumerate(zip(config.features, axes.flat, strict=False)):
        x = pool.values[:, k]
        edges = np.linspace(*np.quantile(x, [0.0005, 0.995]), 61)
        weights = pool.weight / pool.weight.sum() * tables.expected
        axis.hist(x, edges, weights=weights, color="0.8", label="background")
        if tables.data is not None:
            counts, _ = np.histogram(tables.data[:, k], edges)
            axis.errorbar((edges[1:] + edges[:-1]) / 2, counts, np.sqrt(counts), fmt="k.", ms=3, lw=0.7, label="data")
        for colour, (signal, events) in zip(mpl.color_sequences["petroff10"], tables.signals.items(), strict=False):
            scale = np.full(len(events), tables.expected / 5 / max(1, len(events)))
            axis.hist(events.values[:, k], edges, weights=scale, histtype="step", color=colour, label=signal)
        axis.set(xlabel=f"{name} [GeV]" if name.startswith("m_") else name, ylabel="events / bin", yscale="log")
        axis.set_ylim(0.3, None)
    axes.flat[0].legend(fontsize=7)
    for axis in axes.flat[count:]:
        axis.set_axis_off()
    return figure


def responses(values: Values, loss: str, largest: float) -> Figure:
    """Figures 2 to 5: the four statistics against injected events, up to ``largest``."""
    config = values.config
    figure = Figure(figsize=(9.6, 7.4), layout="constrained")
    for (name, title), axis in zip(PANELS.items(), figure.subplots(2, 2).flat, strict=True):
        null = values.null((loss, name))
        _response(axis, values, (loss, name), null[np.isfinite(null)], largest)
        axis.set(xlabel="injected signal events", ylabel=title, xlim=(0, largest))
        luminosity = config.compare.luminosity
        upper = axis.secondary_xaxis(
            "top", functions=(lambda n, lum=luminosity: n / lum, lambda fb, lum=luminosity: fb * lum)
        )
        upper.set_xlabel("cross section x acceptance [fb]")
    figure.axes[0].legend(fontsize=7)
    return figure


def _response(axis: Axes, values: Values, test: tuple[str, str], null: np.ndarray, largest: float) -> None:
    found = bands(null)
    axis.axhspan(found["low_2"], found["high_2"], color="#ffdf00", lw=0, label="2σ")
    axis.axhspan(found["low_1"], found["high_1"], color="#5fd35f", lw=0, label="1σ")
    axis.axhline(found["median"], color="k", lw=0.6, ls=":")
    shown = [found["low_2"], found["high_2"]]
    for colour, signal in zip(mpl.color_sequences["petroff10"], values.config.scan.signals, strict=False):
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
    n = values.config.scan.calibration
    figure = Figure(figsize=(5.4, 4.4), layout="constrained")
    axis = figure.subplots()
    drawn = 0
    for loss, name in values.tests:
        null = sign((loss, name)) * values.null((loss, name))
        checks = sign((loss, name)) * values.of(NO_SIGNAL, 0.0, (loss, name), n)
        null, checks = null[np.isfinite(null)], checks[np.isfinite(checks)]
        if len(checks) < 20 or len(null) < 20:
            continue
        drawn = len(checks)
        p = np.sort([p_value(t, null) for t in checks])
        axis.step(p, np.arange(1, len(p) + 1) / len(p), lw=0.9, where="post", label=f"{loss} {name}")
        width = 1.358 * np.sqrt(1 / len(checks) + 1 / len(null))
    if not drawn:
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
    summary = {
        "acceptance": acceptance,
        "expected": pools.expected,
        "reference": len(pools.reference),
        "null_pool": len(pools.null),
        "nature_pool": len(pools.nature),
        "finished": len(found.good) // len(config.networks.losses),
        "planned": len(found.trials),
        **analyse(found.rows, config, acceptance),
    }
    write_table(pa.Table.from_pylist(found.good), found.folder / "rows.parquet")
    figures = save_figures(figures_of_scan(config, pools, found.rows), found.folder / "figures")
    shown = tables(summary)
    sections = [
        Section(title, TEXTS["tables"].get(title, ""), tables=[Table(*content)]) for title, content in shown.items()
    ]
    sections.append(Section("Figures", figures=images(figures, TEXTS["captions"], *figures)))
    subtitle = f"{config.compare.luminosity:g} fb⁻¹, features {', '.join(config.features)}"
    return Report(summary, headlines(summary), shown, sections, subtitle, figures, metrics(summary))


def headlines(summary: dict[str, Any]) -> list[str]:
    """The few sentences that a reader should take away."""
    lines = [
        f"{summary['finished']} of {summary['planned']} comparisons finished; {summary['bootstraps']} bootstraps; "
        f"{summary['expected']:.0f} expected background events, reference of {summary['reference']}."
    ]
    if "data_p" in summary["combined"]:
        count = summary["combined"]["tests"]
        lines.append(f"The data: p = {summary['combined']['data_p']:.3f} of {count} statistics combined.")
    return lines


def _quoted(limit: dict[str, Any] | None, unit: str) -> str:
    found = (limit or {}).get(unit)
    if not found or found["value"] is None:
        return "-"
    digits = 2 if unit == "fb" else 0
    low, high = (f"{found[k]:.{digits}f}" if found[k] is not None else "?" for k in ("low", "high"))
    if found["bound"]:  # below the smallest strength nothing is known
        return f"≤ {found['value']:.{digits}f}"
    return f"{found['value']:.{digits}f} ({low}-{high})"


def _mass(signal: str) -> int | None:
    """The parent mass that a sample's name carries, for the paper's column."""
    return next((m for m in (125, 150, 250) if str(m) in signal), None)


Text = tuple[list[str], list[list[str]]]
"""Head and rows of a table."""


def tables(summary: dict[str, Any]) -> dict[str, Text]:
    """Title -> table, for the page and the terminal."""
    tests, combined = summary["tests"], summary["combined"]
    out = {}
    if tests[0]["limits"]:
        out["95 % limits"] = _limits(tests)
    if any("data" in test for test in tests):
        rows = [
            [t["loss"], t["statistic"], f"{t['data']['value']:.4g}", f"{t['data']['p']:.3f}"]
            for t in tests
            if "data" in t
        ]
        rows.append(["all", f"{combined['tests']} combined", "", f"{combined['data_p']:.3f}"])
        out["The data"] = ["loss", "statistic", "value", "p"], rows
    if any("calibration" in test for test in tests):
        out["Calibration without signal"] = _calibrations(summary)
    return out


def _limits(tests: list[dict[str, Any]]) -> Text:
    quoted = [(kind, unit) for kind in ("crossing", "cls") for unit in ("events", "fb")]
    names = [f"{'CLs' if kind == 'cls' else kind}, {unit}" for kind, unit in quoted]
    rows = []
    for signal in tests[0]["limits"]:
        for test in tests:
            limit = test["limits"][signal] or {}
            paper = PAPER_LIMITS.get((test["loss"], _mass(signal)), "-")
            found = [_quoted(limit.get(kind), unit) for kind, unit in quoted]
            rows.append([signal, test["loss"], test["statistic"], *found, paper])
    return ["signal", "loss", "statistic", *names, "paper, fb"], rows


def _calibrations(summary: dict[str, Any]) -> Text:
    def cells(c: dict[str, Any], bootstraps: int, ks: str) -> list[str]:
        return [str(c["data_sets"]), str(bootstraps), f"{c['type_i']:.3f} ± {c['error']:.3f}", ks]

    rows = [
        [t["loss"], t["statistic"], *cells(c, c["bootstraps"], f"{c['ks_p']:.3f}")]
        for t in summary["tests"]
        if (c := t.get("calibration"))
    ]
    if (c := summary["combined"].get("calibration")) is not None:
        rows.append(["all", "combined", *cells(c, summary["bootstraps"], "-")])
    return ["loss", "statistic", "data sets", "bootstraps", "type I at 5 %", "KS p"], rows


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
