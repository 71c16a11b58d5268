"""Write tests/records/<name>.json from ``calibration.json`` and its nulls: ``python -m tests.search.record_nulls
CONFIG NAME``."""

from __future__ import annotations

import math
import sys
from datetime import UTC, datetime
from typing import Any

import numpy as np
from scipy.stats import norm

from raypipe.cluster.run import Run
from raypipe.config import load_config
from raypipe.files import read_json, write_json
from raypipe.report.calibrated import FILE
from raypipe.search.result import DRAWN, RETRAINED, SIMULATED
from raypipe.stats.calibration import Calibration, clopper_pearson, levels
from raypipe.stats.significance import mean_and_error
from tests.conftest import ROOT

Row = dict[str, Any]


def held_out(of: Calibration) -> list[Row]:
    """Each half of the nulls, judged by the map of the other: how many have which p-value, reported and calibrated.

    A level is told where five of the nulls are expected.
    """
    halves = [(Calibration(of.key, of.points, of.z[k::2]), of.z[1 - k :: 2]) for k in (0, 1)]
    rows = []
    for k, point in enumerate(of.points):
        judged = [(own, z[:, k][~np.isnan(z[:, k])]) for own, z in halves]
        z = np.concatenate([others for _, others in judged])
        found = np.array([own.at(point, v).p for own, others in judged for v in others])
        p = {"reported": norm.sf(z), "calibrated": found}
        for level in [p for p in levels(len(z)) if p * len(z) >= 5]:
            counts = {which: int((values <= level).sum()) for which, values in p.items()}
            shares = {f"{which}_share": count / len(z) for which, count in counts.items()}
            bands = {f"{which}_band": clopper_pearson(count, len(z)) for which, count in counts.items()}
            rows.append({"working_point": point, "level": level, "nulls": len(z)} | counts | shares | bands)
    return rows


def true_levels(of: Calibration) -> list[Row]:
    """What is reported where the truth is 0.1, 0.01 and so on: p of the null that stands there, and its 68 % band."""
    rows = []
    for k, point in enumerate(of.points):
        z = np.sort(of.z[:, k][~np.isnan(of.z[:, k])])[::-1]
        for level in levels(len(z)):
            expected = level * len(z)
            places = [expected, expected + math.sqrt(expected), max(expected - math.sqrt(expected), 0.0)]
            p = [float(norm.sf(z[min(round(place), len(z)) - 1 if place >= 1 else 0])) for place in places]
            rows.append({"working_point": point, "level": level, "reported": p[0], "high": p[1], "low": p[2]})
    return rows


def pulls(rows: list[Row]) -> Row | None:
    """Of the fitted yields of simulated nulls: their mean, and their width; None where nothing is fitted."""
    mine = [r for r in rows if r["kind"] == SIMULATED and math.isfinite(r.get("fit_s_err_after", math.nan))]
    mine = [r for r in mine if r["fit_valid_after"] and not r["verdict"]]
    if len(mine) < 2:
        return None
    found = [r["fit_s_after"] / r["fit_s_err_after"] for r in mine]
    mean, error = mean_and_error(found)
    covered = float(np.mean(np.abs(found) < 1))
    width = float(np.std(found, ddof=1))
    return {"nulls": len(found), "mean": mean, "error": error, "width": width, "coverage_68": covered}


def main(path: str, name: str) -> None:
    """Keep what the nulls told, and what they cost."""
    config = load_config(path, [])
    if config.seed in config.tuned_on:
        raise SystemExit(f"{path}: seed {config.seed} is one that its configuration was chosen on (tuned_on)")
    with Run(config) as run:
        record = read_json(run.folder / FILE)
        counts = {kind: max((e["nulls"] for e in record[kind]), default=0) for kind in (RETRAINED, SIMULATED)}
        nulls = len(record["maps"]["id"]["z"])
        asked = run.search.nulls(nulls, counts[RETRAINED], counts[SIMULATED])
        rows = run.finished(run.keys(asked, run.look(asked)))[1]
    point = config.selection.working_points[0]
    seconds = [r["seconds"] for r in rows if r["kind"] == DRAWN and r["working_point"] == point]
    told = {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "configuration": path,
        "seed": config.seed,
        "luminosity": config.pseudodata.luminosity,
        "metric": record["metric"],
        "nulls": nulls,
        "core_seconds": {"null": float(np.median(seconds)), "all": float(np.sum(seconds))},
        "tails": record["tails"],
        "held_out": held_out(Calibration.of(record["maps"]["id"])),
        "true_levels": true_levels(Calibration.of(record["maps"]["id"])),
        "retrained": record["retrained"],
        "simulated": record["simulated"],
        "likelihood": record.get("likelihood", []),
        "pulls": pulls(rows),
    }
    write_json(ROOT / "tests" / "records" / f"{name}.json", told)
    for entry in [*told["held_out"], *told["true_levels"], *told["simulated"], *told["retrained"], told["pulls"]]:
        print(entry)


if __name__ == "__main__":
    main(*sys.argv[1:])
