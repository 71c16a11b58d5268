"""What a search on a table tells: its cuts and windows, on the terminal, in ``summary.json`` and on a page."""

from collections.abc import Mapping
from typing import Any

from raypipe.report.base import Report, page_of
from raypipe.report.figures import features, table_mass, windows
from raypipe.report.html import resource, say, table_of
from raypipe.search.base import Found, plain
from raypipe.search.counting import cut_lines
from raypipe.search.table_search import TableSearch, regions_of, together

METRICS = ("z_before", "z_after", "sic", "max_sic", "n_before", "n_after", "expected_after", "expected_after_error")


def table_report(search: TableSearch, found: Found) -> Report:
    """The cuts of the one trial, or of the best window with what all windows say together."""
    if search.config.blind:
        return _blind_report(search, found)
    config, texts, regions = search.config, resource("texts")["table"], regions_of(search.config)
    every, summary, lines, tables, drawn = [plain(row) for row in found.good], {}, [], {}, {}
    number, name, among, where = 0, "scores", "", ""
    if config.windows is not None:
        summary = together(found.good, len(regions))
        number = every[0]["instance"] if summary["best"] is None else summary["best"]
        lines, tables, drawn = _of_windows(summary, texts["windows"])
        name, among = f"scores_{number}", f" (one of {len(regions)} windows)"
        where = f"{regions[number].sr_low:g}-{regions[number].sr_high:g}{among}: "
    rows, window = [row for row in every if row["instance"] == number], regions[number]
    first, bad = rows[0], sum(bool(row["verdict"]) for row in rows)
    closes = f"does NOT close at {bad} of {len(rows)} cuts" if bad else "closes at all cuts"
    cuts = [cut_lines(row) for row in rows]
    for cut, row in zip(cuts, rows, strict=True):
        cut[0] += "" if row["sic"] is None else f", SIC {row['sic']:.2f}"
    lines.append(f"{where}{cuts[0].pop(0)}. The background model {closes}.")
    known = first | {"policy": texts["policy"][first["duplicates"]]}
    lines += [say(text, known) for name, text in texts["lines"].items() if first[name]]
    lines += [line for cut in cuts for line in cut]
    lines += [say(text, first) for name, text in texts["all_cuts"].items() if first[name] is not None]
    scores = found.folder / f"{name}.parquet"
    lines.append(f"scores: {scores}; summary: {found.folder / 'summary.json'}")
    told = ((name, row) for row in rows for name in METRICS if row.get(name) is not None)
    metrics = {f"{name}.wp{row['working_point']:g}": row[name] for name, row in told}
    metrics |= {name: summary[name] for name in ("p_global", "z_global") if summary.get(name) is not None}
    summary |= {"rows": every, "key": first["key"], "files": search.digests(), "scores": str(scores)}
    arrays, names = found.arrays(first["key"]), ", ".join(map(str, config.data.columns.features))
    known |= {"low": window.sr_low, "high": window.sr_high, "names": names, "among": among}
    mass = table_mass(arrays, config.model_copy(update={"window": window}))
    drawn |= {"mass": mass, "features": features(arrays)}
    page = page_of(search, found, {"cuts": rows} | tables, drawn, **known)
    return Report(summary, lines, tables, **page, metrics=metrics)


def _of_windows(told: Mapping[str, Any], texts: Mapping[str, str]) -> tuple[list[str], dict, dict]:
    """Lines, tables and figures of what `together` says of all windows."""
    count, entries, columns = told["count"], told["windows"], resource("texts")["table"]["tables"]["windows"]
    cuts = [", ".join("withheld" if z is None else f"{z:.2f}" for z in one["cuts"].values()) for one in entries]
    table = table_of(columns, [one | {"z_cuts": z} for one, z in zip(entries, cuts, strict=True)])
    silent = count - sum(one["p_local"] is not None for one in entries)
    best = next((one for one in entries if one["instance"] == told["best"]), None)
    lines = [say(texts["found"], told | best)] if best else []
    lines += [say(texts["silent"], {"count": count, "silent": silent})] if silent else []
    return lines, {"windows": table}, {"windows": windows(told) if best else None}


def _blind_report(search: TableSearch, found: Found) -> Report:
    """The sidebands and the validation windows in them."""
    fit, *rows = found.good
    told = "sideband fit: χ² {massfit_chi2:.1f} of {massfit_ndf}, {expected_before:.1f} ± {expected_before_error:.1f}"
    lines = [f"{told.format_map(fit)} expected in the signal region, from {fit['events']} events"]
    for row in rows:
        told = "closure AUC {sideband_auc:.3f} ± {sideband_auc_error:.3f}, κ {kappa:.2f} ± {kappa_error:.2f}"
        where = f"validation in the {row['sideband']} sideband, {row['sr_low']:.4g}-{row['sr_high']:.4g}"
        lines.append(f"{where}: {row['refused'] or told.format_map(row)}")
        lines += [] if row["refused"] else cut_lines(row | {"n_after": row["observed_after"]})
    summary = {"rows": [plain(row) for row in found.good], "files": search.digests()}
    return Report(summary, [*lines, f"summary: {found.folder / 'summary.json'}, scores of the windows beside it"])
