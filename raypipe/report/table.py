"""What a search on a table tells: its cuts, on the terminal and in ``summary.json``; no page."""

from __future__ import annotations

from raypipe.report.base import Report
from raypipe.search.base import Found, plain
from raypipe.search.counting import cut_lines
from raypipe.search.table_search import TableSearch

METRICS = ("z_before", "z_after", "sic", "max_sic", "n_before", "n_after", "expected_after", "expected_after_error")


def table_report(search: TableSearch, found: Found) -> Report:
    """The cuts of the one trial."""
    rows = [plain(row) for row in found.good]
    first, lines = rows[0], []
    if first["features"]:
        lines.append(f"made smooth for the flow: {first['features']}")
    if first["negative_weights"]:
        share = f"{first['negative_weights']:.2%} of the background's weights are negative"
        lines.append(f"{share}: its template is their sum, trees take averages over nearest events")
    if first["repeated"]:
        policy = "dropped" if first["duplicates"] == "drop" else "kept, in the fold of the first"
        lines.append(f"{first['repeated']} events repeat an earlier one: {policy}")
    if first["shared"]:
        lines.append(f"{first['shared']} background events of the signal region are in the data too: in the same fold")
    for row in rows:
        cut, *rest = cut_lines(row)
        lines += [cut if row["sic"] is None else f"{cut}, SIC {row['sic']:.2f}", *rest]
    if first["z_likelihood"] is not None:
        lines.append(f"all bins of the score together: z {first['z_likelihood']:.2f}")
    if first["max_sic"] is not None:
        best = f"largest SIC {first['max_sic']:.2f} ± {first['max_sic_error']:.2f}"
        lines.append(f"{best} at background efficiency {first['max_sic_background_efficiency']:.2e}")
    (key,) = found.trials
    scores = found.folder / "scores.parquet"
    lines.append(f"scores: {scores}; summary: {found.folder / 'summary.json'}")
    told = ((name, row) for row in rows for name in METRICS if row.get(name) is not None)
    metrics = {f"{name}.wp{row['working_point']:g}": row[name] for name, row in told}
    summary = {"rows": rows, "key": key, "files": search.digests(), "scores": str(scores)}
    return Report(summary, lines, metrics=metrics)
