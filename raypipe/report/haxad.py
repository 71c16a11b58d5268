"""Summary, figures and page of a HAXAD scan (paper A)."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from scipy.stats import norm

from raypipe.config.haxad import HaxadConfig
from raypipe.files import read_json
from raypipe.report.background import asked, sculpting, sculpting_figure, verdict
from raypipe.report.base import Report, curves_of, page_of, point_metrics
from raypipe.report.calibrated import shown
from raypipe.report.figures import masses
from raypipe.report.html import resource
from raypipe.report.style import COLOURS, new_figure
from raypipe.report.summary import OPTIONAL, quote, withheld_lines
from raypipe.report.summary import summarise as means
from raypipe.search.base import Found
from raypipe.search.haxad_search import FOLDER, Haxad
from raypipe.search.result import NO_SIGNAL

Rows = Sequence[Mapping[str, Any]]
QUANTITIES = (
    *("fit_z_before", "fit_z_after", "fit_s_before", "fit_s_after", "asimov_before", "asimov_after", "sic"),
    *("s_before", "s_after", "higgs_after", "z_after", "sculpting_p"),
    *("expected_after", "b_after", "kappa", "background_pull"),
)
POINT = ("method", "signal", "strength", "working_point")


def summarise(rows: Rows, config: HaxadConfig) -> dict[str, Any]:
    """Means with standard errors over instances by method, signal, strength and cut; null and linearity studies."""
    good = [row for row in rows if row["status"] == "ok"]
    points = config.selection.working_points
    floats = [r | {k: float(r[k]) for k in QUANTITIES if r.get(k) is not None} for r in good]  # counts too
    told = (*QUANTITIES, *(name for name in OPTIONAL if any(name in r for r in floats)))
    return {
        "results": means(floats, POINT, told, kept=["family"]),
        "null": [null_study(good, point) for point in points],
        "linearity": [linearity(good, point) for point in points],
    }


def _fits(rows: Rows, point: float, null: bool) -> Rows:
    """Those of `cathode` at a cut whose fit is valid and not withheld, without a signal or with one."""
    mine = [r for r in rows if r["method"] == "cathode" and r["working_point"] == point]
    mine = [r for r in mine if (r["signal"] == NO_SIGNAL) == null]
    return [r for r in mine if r.get("fit_valid_after") and not r.get("verdict")]


def null_study(rows: Rows, point: float) -> dict[str, Any] | None:
    """Runs without signal: pulls of the fitted yield, how often Z is zero, above one and above two sigma, coverage."""
    chosen = _fits(rows, point, null=True)
    if not chosen:
        return None
    pull = np.array([r["fit_s_after"] / r["fit_s_err_after"] for r in chosen])
    z = np.array([r["fit_z_after"] for r in chosen])
    n = len(z)
    quoted = quote([dict(r, pull=v) for r, v in zip(chosen, pull.tolist(), strict=True)], "pull")
    width = float(pull.std(ddof=1)) if n > 1 else None
    pulls = {"pull_mean": quoted["mean"], "pull_mean_error": quoted["standard_error"], "pull_width": width}
    above = {f"share_above_{k}": float((z > k).mean()) for k in (1, 2)}
    expected = [0.5, float(norm.sf(1)), float(norm.sf(2))]
    shares = {"share_zero": float((z <= 1e-6).mean()), **above, "expected_shares": expected}
    rest = {"coverage_68": float((np.abs(pull) < 1).mean()), "z": z.tolist(), "pulls": pull.tolist()}
    return {"working_point": point, "instances": n} | pulls | shares | rest


def linearity(rows: Rows, point: float) -> dict[str, Any] | None:
    """Straight line through fitted against injected events after the cut, weighted with the fits' errors."""
    chosen = _fits(rows, point, null=False)
    if len({r["strength"] for r in chosen}) < 2:
        return None
    x = np.array([r["s_after"] for r in chosen], float)
    y, e = (np.array([r[f"fit_{name}_after"] for r in chosen]) for name in ("s", "s_err"))
    (offset, slope), value = _line(x, y, e)
    errors = _jackknife(np.array([r["instance"] for r in chosen]), x, y, e)
    line = {"slope": slope, "slope_error": errors[1], "offset": offset, "offset_error": errors[0]}
    return {"working_point": point, "runs": len(x), **line, "chi2": value, "ndf": len(x) - 2}


def _line(x: np.ndarray, y: np.ndarray, e: np.ndarray) -> tuple[list[float], float]:
    """Offset and slope of the weighted straight line, and its chi^2."""
    design = np.stack([np.ones_like(x), x], 1) / e[:, None]
    found = np.linalg.lstsq(design, y / e, rcond=None)[0]
    return found.tolist(), float(((y / e - design @ found) ** 2).sum())


def _jackknife(instance: np.ndarray, x: np.ndarray, y: np.ndarray, e: np.ndarray) -> list[float | None]:
    """Errors of offset and slope: injections into one pseudo-data set share its background, so it goes as a whole."""
    groups = np.unique(instance)
    if len(groups) < 2:
        return [None, None]
    left = np.array([_line(*(v[instance != group] for v in (x, y, e)))[0] for group in groups])
    return np.sqrt((len(groups) - 1) * left.var(axis=0)).tolist()


def headlines(summary: Mapping[str, Any]) -> list[str]:
    """The verdict, and the few sentences that a reader should take away besides."""
    mine = [e for e in summary["results"] if e["method"] == "cathode"]
    return verdict(mine, "fit_z", resource("texts")["haxad"]) + withheld_lines(summary["results"])


def null_figure(study: Mapping[str, Any]) -> Figure:
    """Pulls and significances of the runs without signal."""
    figure, (left, right) = new_figure(2)
    grid = np.linspace(-4, 4, 81)
    bins = np.linspace(-4, 4, 17)
    left.stairs(np.histogram(study["pulls"], bins)[0], bins, color=COLOURS["template"], fill=True, alpha=0.5)
    left.plot(grid, norm.pdf(grid) * study["instances"] * np.diff(bins)[0], color=COLOURS["true"])
    left.set(xlabel="fitted signal / its error", ylabel="runs", title=f"{study['instances']} runs without signal")
    z = np.sort(study["z"])
    right.step(z, 1 - np.arange(len(z)) / len(z), where="pre", color=COLOURS["template"], label="runs")
    right.plot(grid[grid > 0], norm.sf(grid[grid > 0]), color=COLOURS["true"], label="expected")
    right.set(xlabel="Z", ylabel="share of runs with a larger Z", yscale="log", xlim=(-0.1, 4))
    right.legend(fontsize=8)
    return figure


def linearity_figure(rows: Rows, point: float) -> Figure:
    """Fitted against injected events after the cut."""
    figure, (axis,) = new_figure()
    fits = _fits(rows, point, null=False)
    for colour, signal in zip(COLOURS.values(), sorted({r["signal"] for r in fits}), strict=False):
        mine = [r for r in fits if r["signal"] == signal]
        x, y, error = ([r[name] for r in mine] for name in ("s_after", "fit_s_after", "fit_s_err_after"))
        axis.errorbar(x, y, error, fmt="o", ms=3, lw=0.8, color=colour, label=signal)
    top = axis.get_xlim()[1]
    axis.plot([0, top], [0, top], "k--", lw=0.8)
    axis.set(xlabel="injected events after the cut", ylabel="fitted signal events")
    axis.legend(fontsize=8)
    return figure


def haxad_report(search: Haxad, found: Found) -> Report:
    """Bump hunts before and after the cut, null and linearity studies."""
    config = search.config
    calibration, point = shown(search, found), config.selection.working_points[0]
    summary = summarise(calibration.rows, config)
    main = [row for row in found.good if row["method"] == "cathode" and row["working_point"] == point]
    summary["sculpting"] = sculpting(main, found.arrays)
    history = read_json(found.folder / FOLDER / "encoder.json")["history"]
    parts = {name: list(filter(None, summary[name])) for name in ("results", "null", "linearity", "sculpting")}
    parts["background"] = [e for e in summary["results"] if e["method"] == "cathode"]
    parts |= calibration.parts
    drawn = figures_of_scan(config, found, main) | {"sculpting": sculpting_figure(summary["sculpting"])}
    drawn |= calibration.figures
    told = asked(config) | {"epochs": len(history), "error": history[-1]["error"], "kl": history[-1]["kl"]}
    page = page_of(search, found, parts, drawn, **told | {"low": config.window.low, "high": config.window.high})
    found_by = {"metrics": metrics(summary), "curves": curves_of(summary["results"], QUANTITIES), "history": history}
    return Report(summary, [*headlines(summary), *calibration.notes], **page, **found_by)


def figures_of_scan(config: HaxadConfig, found: Found, rows: Rows) -> dict[str, Figure]:
    """Every figure of a scan by name; ``rows``: those of `cathode` after the first cut."""
    point = config.selection.working_points[0]
    figures: dict[str, Figure] = {}
    loud = sorted((r for r in rows if r["signal"] != NO_SIGNAL), key=lambda r: -r["strength"])
    if loud:
        title = f"{loud[0]['signal']} at {loud[0]['strength']:g}"
        figures["spectrum"] = masses(found.arrays(loud[0]["key"]), config, title)
    if quiet := [r for r in rows if r["signal"] == NO_SIGNAL]:
        figures["spectrum_no_signal"] = masses(found.arrays(quiet[0]["key"]), config, "no signal")
    if study := null_study(rows, point):
        figures["null"] = null_figure(study)
    if _fits(rows, point, null=False):
        figures["linearity"] = linearity_figure(rows, point)
    return figures


def metrics(summary: Mapping[str, Any]) -> dict[str, float]:
    """Fits, significances, null and linearity studies, for MLflow."""
    found = {}
    for name in ("null", "linearity"):
        for study in filter(None, summary[name]):
            numbers = {k: v for k, v in study.items() if isinstance(v, float) and k != "working_point"}
            found |= {f"{name}.{k}.wp{study['working_point']:g}": v for k, v in numbers.items()}
    return found | point_metrics(summary["results"], QUANTITIES, "method")
