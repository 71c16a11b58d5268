"""``calibration.json``: what the pseudo-nulls of a search told, for the terminal, the page and the rows of its scan."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from scipy.stats import kstest, norm

from raypipe.errors import UserError
from raypipe.files import digest, read_json
from raypipe.report.html import Table, say, table_of
from raypipe.report.summary import SHARED
from raypipe.search.base import Found, Made, Search, plain
from raypipe.search.result import DRAWN, RETRAINED, SIMULATED, Trial
from raypipe.stats.calibration import Calibration, levels, tail
from raypipe.stats.significance import mean_and_error

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FILE = "calibration.json"
Row = Mapping[str, Any]
Maps = Mapping[str, Calibration]
"""By embedding."""


def search_key(search: Search, trial: Trial, made: Made) -> str:
    """Hash of all that determines a search on any data, as the keys of its trials hold it. It reads all of the code."""
    return digest(search.inputs_key(search.need(trial), made))


def _significances(rows: Sequence[Row], embedding: str, kind: str, metric: str) -> dict[int, dict[float, float]]:
    """By number of the null and by cut."""
    found: dict[int, dict[float, float]] = defaultdict(dict)
    for row in rows:
        if (row["embedding"], row["kind"]) == (embedding, kind):
            found[row["number"]][row["working_point"]] = row[metric]
    return found


def calibration_record(rows: Sequence[Row], keys: Mapping[str, str], metric: str = "z_after") -> dict[str, Any]:
    """``calibration.json`` from the rows of nulls; ``metric``: the significance that is calibrated.

    ``keys``: `search_key` by embedding, as are ``maps``. ``tails``: how often nulls report a p-value up to
    ``reported``, by cut (None: the best of all). ``retrained``: what flows that learn the null itself change: mean and
    width of z, and of the same nulls with the flows as they are. ``simulated``: see `_simulated`. ``likelihood``: see
    `_of_all_bins`.
    """
    maps, tails, retrained, simulated = {}, [], [], []
    for embedding, key in keys.items():
        own, known, fixed = (_significances(rows, embedding, k, metric) for k in (RETRAINED, SIMULATED, DRAWN))
        points = tuple(sorted(next(iter(fixed.values())), reverse=True))
        z = np.array([[by_cut[point] for point in points] for by_cut in fixed.values()])
        maps[embedding] = of = Calibration(key, points, z)
        for point, one in of.tails(levels(len(of.z))):
            tails.append({"embedding": embedding, "working_point": point, **plain(one._asdict())})
        for point in of.points:
            same = {"embedding": embedding, "working_point": point}
            pairs = np.array([(z[point], fixed[number][point]) for number, z in own.items()]).reshape(-1, 2)
            pairs = pairs[np.isfinite(pairs).all(1)]
            if len(pairs) > 1:
                shift, error = mean_and_error((pairs[:, 0] - pairs[:, 1]).tolist())
                entry = same | {"nulls": len(pairs), "shift": shift}
                widths = dict(zip(("width", "width_fixed"), pairs.std(axis=0, ddof=1).tolist(), strict=True))
                retrained.append(entry | {"shift_error": error} | widths)
            z = np.array([of[point] for of in known.values()])
            simulated += [same | _simulated(of, point, z[np.isfinite(z)])] if np.isfinite(z).sum() > 1 else []
    told = {"metric": metric, "tails": tails, "retrained": retrained, "simulated": simulated}
    told["likelihood"] = [entry for embedding in maps if (entry := _of_all_bins(rows, embedding))]
    return {"maps": {name: of.plain() for name, of in maps.items()}} | told


def _of_all_bins(rows: Sequence[Row], embedding: str) -> dict[str, Any] | None:
    """How often the likelihood of all bins finds what in nulls: ``zero`` (half of them, if its asymptotic formula
    holds), z above one and two sigma, and ``tails`` as of the cuts; None where no null has it."""
    known = _significances([{"z_likelihood": math.nan, **row} for row in rows], embedding, DRAWN, "z_likelihood")
    z = np.array([np.fmax.reduce([*of.values()]) for of in known.values()])  # withheld of some cuts
    z = z[np.isfinite(z)]
    if not len(z):
        return None
    shares = {"zero": float((z < 1e-2).mean()), "above_1": float((z > 1).mean()), "above_2": float((z > 2).mean())}
    tails = [plain(tail(z, p)._asdict()) for p in levels(len(z))]
    return {"embedding": embedding, "nulls": len(z), **shares, "tails": tails}


def _simulated(of: Calibration, point: float, z: np.ndarray) -> dict[str, Any]:
    """Nulls that simulation knows, of which the map is not made, after one cut: how many, mean and width of their z.

    ``ks_reported, ks_calibrated``: Kolmogorov-Smirnov p-values of their p-values against a uniform distribution;
    ``below_10%_<which>`` and ``below_1%_<which>``: how many have a p-value up to that.
    """
    mean, error = mean_and_error(z.tolist())
    found: dict[str, Any] = {"nulls": len(z), "mean": mean, "mean_error": error, "width": float(z.std(ddof=1))}
    for which, p in (("reported", norm.sf(z)), ("calibrated", np.array([of.at(point, v).p for v in z]))):
        found[f"ks_{which}"] = float(kstest(p, "uniform").pvalue)
        found |= {f"below_{level:.0%}_{which}": int((p <= level).sum()) for level in (0.1, 0.01)}
    return found


def null_lines(record: Mapping[str, Any]) -> list[str]:
    """Sentences about nulls whose flows were trained anew, simulated ones, and the likelihood of all bins."""
    return [say(SHARED[kind], entry) for kind in (RETRAINED, SIMULATED, "likelihood") for entry in record.get(kind, ())]


def read_calibration(search: Search, found: Found) -> tuple[dict[str, Any] | None, dict[str, Calibration], list[str]]:
    """The record of the run folder, its maps that are of this very search, and a sentence about any that are not."""
    path = found.folder / FILE
    if not path.is_file():
        return None, {}, []
    record, maps, notes = read_json(path), {}, []
    trials = {trial.embedding: trial for trial in found.trials.values()}
    for embedding in record["maps"].keys() & trials.keys():
        own = search_key(search, trials[embedding], found.made)
        try:
            maps[embedding] = Calibration.of(record["maps"][embedding]).check(own, FILE)
        except UserError as error:
            notes = [f"{error}."]
    return record, maps, notes


class Shown(NamedTuple):
    """What a page has of a calibration: rows of the scan with calibrated significances; nothing else without a map."""

    rows: Sequence[Row]
    parts: dict[str, Table]
    figures: dict[str, Figure]
    notes: list[str]


def shown(search: Search, found: Found) -> Shown:
    """The calibration of the run folder, laid on the rows of the scan."""
    record, maps, notes = read_calibration(search, found)
    if not record or not maps:
        return Shown(found.rows, {}, {}, notes)
    table = table_of(SHARED["tails"], [of for of in record["tails"] if of["embedding"] in maps])
    rows = calibrated_rows(found.rows, maps, search.metric)
    return Shown(rows, {"calibration": table}, {"calibration": p_p_plot(maps)}, [*notes, *null_lines(record)])


def calibrated_rows(rows: Sequence[Row], maps: Maps, metric: str = "z_after") -> list[dict[str, Any]]:
    """Rows of a scan with ``z_calibrated``, of the cut, and ``z_global``, of its smallest p-value over all cuts.

    ``<name>_bound``: whether no null has reached it. Only rows of `cathode` in embeddings that have a map change.
    """
    reported: dict[str, dict[float, float]] = defaultdict(dict)
    ours = {r["key"]: maps[r["embedding"]] for r in rows if r["method"] == "cathode" and r["embedding"] in maps}
    for row in rows:
        if row["key"] in ours and row["status"] == "ok":
            reported[row["key"]][row["working_point"]] = row[metric]
    overall = {key: ours[key].anywhere(z) for key, z in reported.items()}
    found = []
    for row in rows:
        if row["key"] in overall and not math.isnan(row[metric]):
            here, best = ours[row["key"]].at(row["working_point"], row[metric]), overall[row["key"]]
            columns = {"z_calibrated": here.z, "z_calibrated_bound": here.is_bound}
            row = row | columns | {"z_global": best.z, "z_global_bound": best.is_bound}
        found.append(dict(row))
    return found


def p_p_plot(maps: Maps) -> Figure:
    """Empirical against reported p-values of all nulls, a line a cut."""
    from raypipe.report.style import new_figure

    figure, axes = new_figure(len(maps))
    for axis, (embedding, of) in zip(axes, maps.items(), strict=True):
        for point, z in zip(of.points, of.z.T, strict=True):
            known = np.sort(z[~np.isnan(z)])
            reported = [math.erfc(v / math.sqrt(2)) / 2 for v in known]
            axis.step(reported, np.arange(len(known), 0, -1) / max(len(known), 1), lw=1.2, label=f"cut at {point:.1%}")
        least = 1 / (len(of.z) + 1)
        axis.plot([least, 1], [least, 1], "k:", lw=0.8)
        axis.set(xscale="log", yscale="log", xlim=(least / 10, 1), ylim=(least, 1.1), title=embedding)
        axis.set(xlabel="reported p", ylabel="share of nulls")
        axis.legend(fontsize=7)
    return figure
