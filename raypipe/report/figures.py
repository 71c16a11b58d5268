"""Figures of a scan, each a function of plain arrays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import cycle, product
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
import mplhep
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy import stats

from raypipe.config import Config
from raypipe.report.background import sculpting_figure
from raypipe.report.style import COLOURS, CYCLE, new_figure
from raypipe.report.summary import curve, is_main, ways_of, with_signal
from raypipe.search.base import Found
from raypipe.search.result import NO_SIGNAL

if TYPE_CHECKING:
    from raypipe.search.confusion import Confusion  # and with it PyTorch

Arrays = Mapping[str, np.ndarray]


def _step(axis: Axes, edges: np.ndarray, counts: np.ndarray, colour: str, label: str, **style: Any) -> None:
    mplhep.histplot(counts, edges, ax=axis, yerr=False, color=COLOURS[colour], label=label, **style)


def points(axis: Axes, edges: np.ndarray, counts: np.ndarray, colour: str = "data", label: str = "data") -> None:
    """Counts with their Poisson errors in the middle of the bins."""
    style = {"fmt": "o", "ms": 2.5, "lw": 0.8, "color": COLOURS[colour], "label": label}
    axis.errorbar((edges[:-1] + edges[1:]) / 2, counts, np.sqrt(counts), **style)


def features(arrays: Arrays, title: str = "") -> Figure:
    """What a classifier sees in the signal region, a panel a column: template and data, and as far as they are known
    true background, injected signal (paper C, figure 1), and the data after the cut."""
    names = [name.removesuffix("_template") for name in arrays if name.endswith("_template")]
    names = [name for name in names if f"{name}_edges" in arrays]
    figure, axes = new_figure(len(names), 4.3, 3.3)
    for name, axis in zip(names, axes, strict=True):
        edges, counts = arrays[f"{name}_edges"], {k: arrays.get(f"{name}_{k}") for k in ("true", "signal", "after")}
        _step(axis, edges, arrays[f"{name}_template"], "template", "template", histtype="fill", alpha=0.35)
        points(axis, edges, arrays[f"{name}_data"])
        for what, label in (("true", "true background"), ("signal", "injected signal")):
            if counts[what] is not None and counts[what].any():
                _step(axis, edges, counts[what], what, label)
        if counts["after"] is not None:
            points(axis, edges, counts["after"], "true", "data after the cut")
        axis.set(xlabel=name, ylabel="events / bin", yscale="log", ylim=(0.5, None))
    axes[0].legend(fontsize=7)
    axes[0].set_title(title)
    return figure


def closure_roc(curves: list[tuple[str, Arrays, float, float]]) -> Figure:
    """Template against true background in the signal region (paper C, figure 3a): efficiencies and their difference."""
    figure, (left, right) = new_figure(2)
    for label, arrays, auc, error in curves:
        x, y = arrays["closure_efficiency"], arrays["closure_true"]
        left.plot(x, y, lw=1.2, label=f"{label}: AUC {auc:.4f} ± {error:.4f}")
        right.plot(x, y - x, lw=1.2, label=f"_{label}")
    left.plot([0, 1], [0, 1], "k:", lw=0.8)
    left.set(xlabel="template efficiency", ylabel="true-background efficiency", title="Closure ROC")
    left.legend(fontsize=7)
    right.axhline(0, color="k", ls=":", lw=0.8)
    right.set(xlabel="template efficiency", ylabel="difference", title="True background minus template")
    return figure


def sic(curves: Mapping[tuple[str, float], list[Arrays]], points: list[float]) -> Figure:
    """Significance improvement against background efficiency, mean and spread over instances (paper C, figure 4)."""
    signals = sorted({signal for signal, _ in curves})
    figure, axes = new_figure(len(signals))
    for axis, signal in zip(axes, signals, strict=True):
        for colour, strength in zip(CYCLE, sorted(s for n, s in curves if n == signal), strict=False):
            runs = np.array([a["sic"] for a in curves[signal, strength]])
            x = curves[signal, strength][0]["sic_background_efficiency"]
            seen = np.isfinite(runs).any(0)
            mean, low, high = (f(runs[:, seen], axis=0) for f in (np.nanmean, np.nanmin, np.nanmax))
            axis.plot(x[seen], mean, color=colour, label=f"S/√B = {strength:g}")
            axis.fill_between(x[seen], low, high, color=colour, alpha=0.2, lw=0)
        grid = np.geomspace(1e-4, 1, 50)
        axis.plot(grid, np.sqrt(grid), "k:", lw=0.8, label="no selection power")
        for point in points:
            axis.axvline(point, color="grey", ls="--", lw=0.7)
        axis.set(xscale="log", xlabel="background efficiency", ylabel="SIC", title=signal)
        axis.set(ylim=(0, None), xlim=(1e-4, 1))
        axis.legend(fontsize=7)
    return figure


def masses(arrays: Arrays, config: Config, title: str) -> Figure:
    """The m_yy spectrum before and after the cut, with the sideband fit (paper C, figure 3b)."""
    figure, (before, after) = new_figure(2)
    edges = arrays["mass_edges"]
    for axis, stage in ((before, "before"), (after, "after")):
        background, signal = arrays[f"mass_{stage}_background"], arrays[f"mass_{stage}_signal"]
        _step(axis, edges, background, "true", "background (truth)", histtype="fill", alpha=0.3)
        if signal.sum():
            _step(axis, edges, signal, "signal", "signal (truth)")
        points(axis, edges, background + signal)
        axis.axvspan(config.window.sr_low, config.window.sr_high, color="grey", alpha=0.12, lw=0)
        axis.set(xlabel=r"$m_{\gamma\gamma}$ [GeV]", ylabel=f"events / {np.diff(edges)[0]:g} GeV", ylim=(0, None))
    before.plot((edges[:-1] + edges[1:]) / 2, arrays["mass_fit"], color=COLOURS["fit"], label="sideband fit")
    before.set_title(f"before: {title}")
    after.set_title(f"after the cut at {config.selection.working_points[0]:.2%} of the background")
    before.legend(fontsize=7)
    return figure


def table_mass(arrays: Arrays, config: Any) -> Figure:
    """The mass of a user's own table with the fit of its sidebands, the signal region shaded."""
    figure, (axis,) = new_figure(1, 6.4)
    edges, window = arrays["mass_edges"], config.window
    points(axis, edges, arrays["mass_data"])
    if "mass_fit" in arrays:
        axis.plot((edges[:-1] + edges[1:]) / 2, arrays["mass_fit"], color=COLOURS["fit"], label="sideband fit")
    axis.axvspan(window.sr_low, window.sr_high, color="grey", alpha=0.12, lw=0, label="signal region")
    axis.set(xlabel="mass", ylabel=f"events / {np.diff(edges)[0]:.3g}", ylim=(0, None))
    axis.legend(fontsize=8)
    return figure


def windows(told: Mapping[str, Any]) -> Figure:
    """Local p of every window of `together` against its mass, with what one and all of them need for so many sigma."""
    figure, (axis,) = new_figure(1, 7.2)
    seen = [one for one in told["windows"] if one["p_local"] is not None]
    low, high, p = (np.array([one[k] for one in seen]) for k in ("window_low", "window_high", "p_local"))
    style = {"fmt": "o", "ms": 4, "color": COLOURS["data"], "label": "windows"}
    axis.errorbar((low + high) / 2, np.maximum(p, 1e-300), xerr=(high - low) / 2, **style)
    ends = [min(one["window_low"] for one in told["windows"]), max(one["window_high"] for one in told["windows"])]
    for level in (1, 2, 3):
        axis.plot(ends, [stats.norm.sf(level)] * 2, ":", color="grey", lw=0.9, label=f"local {level}σ")
    needed = -np.expm1(stats.norm.logcdf(3) / told["count"])  # the inverse of `sidak`
    axis.plot(ends, [needed] * 2, "--", color=COLOURS["true"], lw=1, label="global 3σ")
    axis.set(xlabel="mass", ylabel="local p", yscale="log", ylim=(None, 1))
    axis.legend(fontsize=8)
    return figure


def significances(results: list[dict[str, Any]]) -> Figure:
    """The analyst's significance of every run, before and after the cut, beside the means."""
    figure, (axis,) = new_figure(1, max(7.5, 0.7 * len(results)), 4.2)
    for k, entry in enumerate(results):
        for x, when, colour in ((k - 0.15, "before", COLOURS["template"]), (k + 0.15, "after", COLOURS["true"])):
            if quoted := entry[f"z_{when}"]:  # not withheld
                label = f"_{when} the cut, one set"
                axis.plot([x] * len(quoted["values"]), quoted["values"], ".", color=colour, alpha=0.5, label=label)
                style = {"fmt": "_", "ms": 14, "color": colour, "label": f"{when} the cut"}
                axis.errorbar(x, quoted["mean"], quoted["standard_error"] or 0, **style)
    axis.axhline(0, color="k", lw=0.8)
    axis.axhspan(-1, 1, color="grey", alpha=0.12, lw=0)
    labels = ["no signal" if e["signal"] == NO_SIGNAL else f"{e['signal']}\n{e['strength']:g}" for e in results]
    axis.set_xticks(range(len(labels)), labels, fontsize=8)
    axis.tick_params(axis="x", which="minor", bottom=False, top=False)
    axis.set(ylabel="significance of observed over expected [σ]")
    unique = dict(zip(*reversed(axis.get_legend_handles_labels()), strict=True))
    axis.legend(unique.values(), unique.keys(), fontsize=8)
    return figure


def training(history: list[dict[str, float]]) -> Figure:
    """Losses of the encoder training."""
    figure, (left, right) = new_figure(2)
    epochs = [record["epoch"] for record in history]
    for axis, name, title in ((left, "contrastive", "supervised contrastive loss"), (right, "kl", "KL term")):
        axis.plot(epochs, [record[f"train_{name}"] for record in history], label="training")
        axis.plot(epochs, [record[name] for record in history], label="validation")
        axis.set(xlabel="epoch", ylabel="nats", title=title)
    left.legend(fontsize=8)
    return figure


def sic_by_strength(rows: Sequence[Mapping[str, Any]], points: Sequence[float]) -> Figure:
    """SIC against strength, a row a signal, a column a cut; bars: errors of means, bands: deviations of instances."""
    signals, ways = with_signal(rows)
    figure, axes = new_figure(len(signals) * len(points), 4.6, 3.2, len(points))
    for axis, (signal, point) in zip(axes, product(signals, points), strict=True):
        for way, colour in zip(ways, cycle(CYCLE), strict=False):
            x, y, e, spread = curve(rows, "sic", way, signal, point).T
            axis.fill_between(x, y - spread, y + spread, color=colour, alpha=0.15, lw=0, label=f"_{' '.join(way)}")
            axis.errorbar(x, y, np.nan_to_num(e), marker="o", ms=4, lw=1.2, color=colour, label=" ".join(way))
        top = axis.dataLim.ymax  # with error bars; margins are a share of the spread, which a single strength lacks
        axis.set(title=f"{signal}, cut at {point:.1%}", xlabel="injected S/√B", ylabel="SIC")
        axis.set(ylim=(0, 1.15 * top if np.isfinite(top) else None), xlim=(0, 1.1 * max(r["strength"] for r in rows)))
    axes[0].legend(fontsize=7)
    return figure


def required_injection(table: list[dict[str, Any]]) -> Figure:
    """The table of `required_table` as points with errors, a panel for each cut; arrows are lower bounds."""
    signals, points = (list(dict.fromkeys(e[name] for e in table)) for name in ("signal", "working_point"))
    figure, axes = new_figure(len(points), max(6.0, 1.1 * len(signals) + 3), 3.6, 1)
    ways = ways_of(table)
    colours = dict(zip(ways, cycle(CYCLE), strict=False))
    for axis, point in zip(axes, points, strict=True):
        labels = {way: " ".join(way) for way in ways}  # one label a way
        for entry in (entry for entry in table if entry["working_point"] == point):
            way, bound = (entry["embedding"], entry["method"]), entry["required"] is None
            x = signals.index(entry["signal"]) + 0.7 / len(ways) * (ways.index(way) - (len(ways) - 1) / 2)
            y, error = (entry["largest"],) * 2 if bound else (entry["required"], entry["standard_error"])
            style = {"fmt": "_" if bound else "o", "color": colours[way], "label": labels.pop(way, None)}
            axis.errorbar(x, y, error * 0.15 if bound else error, lolims=bound, **style)
        axis.set_xticks(range(len(signals)), signals, rotation=30, ha="right", fontsize=8)
        axis.tick_params(axis="x", which="minor", bottom=False, top=False)
        axis.set(title=f"cut at {point:.1%}", ylabel=f"S/√B for {table[0]['target']:g}σ after the cut")
        axis.set(ylim=(0, 1.05 * axis.get_ylim()[1]), xlim=(-0.5, len(signals) - 0.5))
        axis.legend(fontsize=7, loc="center left", bbox_to_anchor=(1.0, 0.5))
    return figure


def figures_of_scan(
    config: Config, found: Found, summary: Mapping[str, Any], history: list[dict[str, float]]
) -> dict[str, Figure | None]:
    """Every figure of a scan by name."""
    points, good = config.selection.working_points, found.good
    main = [r for r in good if is_main(r)] or good
    quoted = {r["key"]: r for r in main if r["working_point"] == points[0]}
    finished = {key: trial for key, trial in found.trials.items() if key in quoted}
    figures = {"encoder_training": training(history), "sculpting": sculpting_figure(summary["sculpting"])}
    if summary["results"]:
        figures["significances"] = significances(summary["results"])
    strongest = [k for k, t in finished.items() if t.signal != NO_SIGNAL]
    strongest.sort(key=lambda k: (-finished[k].strength, config.scan.signals.index(finished[k].signal)))
    none = [k for k, t in finished.items() if t.signal == NO_SIGNAL]
    for name, keys in (("signal", strongest), ("no_signal", none)):
        if keys:
            arrays, title = found.arrays(keys[0]), finished[keys[0]].label()
            figures |= {f"latents_{name}": features(arrays, title), f"masses_{name}": masses(arrays, config, title)}
    if none:
        aucs = [(quoted[k]["closure_auc"], quoted[k]["closure_auc_error"]) for k in none[:4]]
        closures = [(finished[k].label(), found.arrays(k), *auc) for k, auc in zip(none, aucs, strict=False)]
        figures["closure"] = closure_roc(closures)
    curves: dict[tuple[str, float], list[Arrays]] = {}
    for key in strongest:
        curves.setdefault((finished[key].signal, finished[key].strength), []).append(found.arrays(key))
    if curves:
        figures["sic"] = sic(curves, points)
    if summary["required"]:
        figures["sic_by_strength"] = sic_by_strength(good, points)
        figures["required"] = required_injection(summary["required"])
    return figures


def tsne_map(latent: np.ndarray, seed: int, perplexity: float = 30.0) -> np.ndarray:
    """Two-dimensional t-SNE coordinates (n, 2) of latents (n, d), standardised first (scikit-learn, Barnes-Hut)."""
    from sklearn.manifold import TSNE

    scaled = (latent - latent.mean(0)) / (latent.std(0) + 1e-9)
    return TSNE(perplexity=perplexity, init="pca", random_state=seed % 2**32).fit_transform(scaled.astype(np.float64))


def tsne_figure(maps: Mapping[str, tuple[np.ndarray, np.ndarray]], names: Mapping[int, str]) -> Figure:
    """One panel an embedding: coordinates (n, 2) coloured by process group."""
    figure, axes = new_figure(len(maps), 5.0, 4.6, len(maps))
    colours = mpl.color_sequences["tab20"]
    for axis, (title, (points, groups)) in zip(axes, maps.items(), strict=True):
        for k, group in enumerate(sorted(set(groups.tolist()), reverse=True)):
            style = {"ms": 2, "color": colours[k % 20], "label": names[group], "rasterized": True}
            axis.plot(*points[groups == group].T, ".", **style)
        axis.set(title=title, xticks=[], yticks=[])
    axes[-1].legend(fontsize=7, markerscale=4, loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


def confusion_figure(matrices: Mapping[str, Confusion], names: Mapping[int, str]) -> Figure:
    """Confusion matrices side by side, rows normalised to one."""
    figure, axes = new_figure(len(matrices), 5.4, 5.0, len(matrices))
    for axis, (title, confusion) in zip(axes, matrices.items(), strict=True):
        labels = [names[g] for g in confusion.groups]
        axis.imshow(confusion.matrix, vmin=0, vmax=1, cmap="Blues")
        for (i, j), value in np.ndenumerate(confusion.matrix):
            if value >= 0.005:
                colour = "white" if value > 0.5 else "black"
                axis.text(j, i, f"{value:.2f}", ha="center", va="center", fontsize=6, color=colour)
        axis.set_xticks(range(len(labels)), labels, rotation=90, fontsize=7)
        axis.set_yticks(range(len(labels)), labels, fontsize=7)
        axis.set(title=f"{title}: mean diagonal {confusion.diagonal:.3f}", xlabel="called", ylabel="true")
    return figure
