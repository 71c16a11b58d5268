"""What a search on a table tells: its cuts, on the terminal, in ``summary.json`` and on a page."""

from raypipe.report.base import Report, page_of
from raypipe.report.figures import features, table_mass
from raypipe.report.html import resource, say
from raypipe.search.base import Found, plain
from raypipe.search.counting import cut_lines
from raypipe.search.table_search import TableSearch

METRICS = ("z_before", "z_after", "sic", "max_sic", "n_before", "n_after", "expected_after", "expected_after_error")


def table_report(search: TableSearch, found: Found) -> Report:
    """The cuts of the one trial."""
    if search.config.blind:
        return _blind_report(search, found)
    rows, window, texts = [plain(row) for row in found.good], search.config.window, resource("texts")["table"]
    first, bad = rows[0], sum(bool(row["verdict"]) for row in found.good)
    closes = f"does NOT close at {bad} of {len(rows)} cuts" if bad else "closes at all cuts"
    cuts = [cut_lines(row) for row in rows]
    cuts = [
        [c if r["sic"] is None else f"{c}, SIC {r['sic']:.2f}", *rest] for r, (c, *rest) in zip(rows, cuts, strict=True)
    ]
    lines = [f"{cuts[0].pop(0)}. The background model {closes}."]
    known = first | {"policy": texts["policy"][first["duplicates"]]}
    lines += [say(text, known) for name, text in texts["lines"].items() if first[name]]
    lines += [line for cut in cuts for line in cut]
    if first["z_likelihood"] is not None:
        lines.append(say(texts["likelihood"], first))
    if first["max_sic"] is not None:
        lines.append(say(texts["largest"], first))
    (key,) = found.trials
    scores = found.folder / "scores.parquet"
    lines.append(f"scores: {scores}; summary: {found.folder / 'summary.json'}")
    told = ((name, row) for row in rows for name in METRICS if row.get(name) is not None)
    metrics = {f"{name}.wp{row['working_point']:g}": row[name] for name, row in told}
    summary = {"rows": rows, "key": key, "files": search.digests(), "scores": str(scores)}
    arrays, names = found.arrays(key), ", ".join(map(str, search.config.data.columns.features))
    known |= {"low": window.sr_low, "high": window.sr_high, "names": names}
    drawn = {"mass": table_mass(arrays, search.config), "features": features(arrays)}
    page = page_of(search, found, {"cuts": rows}, drawn, **known)
    return Report(summary, lines, **page, metrics=metrics)


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
