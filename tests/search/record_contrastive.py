"""Write tests/records/<name>.json from a finished study: ``python -m tests.search.record_contrastive RUN [name]``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import binomtest

from raypipe.files import read_json, write_json
from raypipe.report.html import plus_minus, with_error
from raypipe.report.summary import is_main, quote
from raypipe.search.result import NO_SIGNAL
from raypipe.store.ledger import Ledger
from tests.conftest import ROOT

PAPER = {
    ("wn_150", "loose"): 7.0,
    ("wn_150", "tight"): 9.8,
    ("xsh_500_100", "loose"): 9.0,
    ("xsh_500_100", "tight"): 17.8,
}
"""SIC of paper C (section IV.3, encoder of everything, 1 sigma injected) at the working point of paper A and at its own
tight one, whose values are lost."""


def record_path(summary: dict[str, Any], name: str) -> Path:
    """Where a record is kept. That of a first look is made once, and from nothing else."""
    path = ROOT / "tests" / "records" / f"{name}.json"
    first = name.endswith("first_look")
    if first and path.exists() and read_json(path)["config_hash"] != summary["config_hash"]:
        raise SystemExit(f"{path}: a first look is recorded once; this one has another configuration or seed")
    if first != (summary["look"] == "first"):
        raise SystemExit(f"{path}: the look of the summary is {summary['look']!r} (tuned_on, seed)")
    return path


def null_of(rows: list[dict[str, Any]], point: float) -> dict[str, Any] | None:
    """Significances of the runs without signal: mean, spread, share above two sigma and its p-value for 2.3 %."""
    none = [r for r in rows if r["signal"] == NO_SIGNAL and r["working_point"] == point and is_main(r)]
    if not none:
        return None
    quoted, z = quote(none, "z_after"), [r["z_after"] for r in none]
    above = int(np.sum(np.array(z) > 2))
    return {
        "working_point": point,
        "instances": len(z),
        "mean": quoted["mean"],
        "error": quoted["standard_error"],
        "above_two_sigma": above,
        "p_for_2.3_percent": float(binomtest(above, len(z), 0.0228).pvalue),
        "z": z,
    }


COMPARED = [
    (("id", "cathode"), ("id", "idealised")),
    (("ip", "cathode"), ("id", "cathode")),
    (("ep", "cathode"), ("background", "cathode")),
    (("ep", "cathode"), ("id", "cathode")),
    (("ip", "cathode"), ("background", "cathode")),
    (("id", "no_higgs"), ("id", "cathode")),
    (("raw", "cathode"), ("id", "cathode")),
]
"""Pairs of (embedding, method) whose SIC on the same pseudo-data sets are compared."""


def compared(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """For each pair, signal, strength and cut: ratio of the mean SIC, and their difference with its paired error.

    Both sides are judged on the same simulated events, whose fluctuation is that of the difference (`quote`).
    """
    sic = {
        (r["embedding"], r["method"], r["signal"], r["strength"], r["working_point"], r["instance"]): r
        for r in rows
        if r["signal"] != NO_SIGNAL
    }
    out = []
    for one, other in COMPARED:
        for signal, strength, point in sorted({k[2:5] for k in sic if k[:2] == one}):
            both = [
                (v, sic[*other, *k[2:]])
                for k, v in sic.items()
                if k[:5] == (*one, signal, strength, point) and (*other, *k[2:]) in sic
            ]
            if len(both) > 1:
                a, b = np.array([[r["sic"] for r in pair] for pair in both]).T
                replicas = np.array([[r["sic_replicas"] for r in pair] for pair in both])
                pairs = zip((a - b).tolist(), (replicas[:, 0] - replicas[:, 1]).tolist(), strict=True)
                quoted = quote([{"sic": value, "sic_replicas": drawn} for value, drawn in pairs], "sic")
                out.append(
                    {
                        "one": one,
                        "other": other,
                        "signal": signal,
                        "strength": strength,
                        "working_point": point,
                        "instances": len(both),
                        "ratio": float(a.mean() / b.mean()),
                        "difference": quoted["mean"],
                        "error": quoted["standard_error"],
                    }
                )
    return out


def _ratio(rows: list[dict[str, Any]]) -> float:
    return float(np.mean([r["z_likelihood"] for r in rows]) / np.mean([r["z_after"] for r in rows]))


def likelihood(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Significance of all bins of the percentile together against that of each cut, on the same pseudo-data sets.

    ``gain``: by strength and cut the ratio of the means over signals and instances, with the error of a jackknife over
    instances (the signals of one share its background); ``null``: z of the sets without a signal, zero for a deficit.
    """
    mine = [r for r in rows if is_main(r) and r["z_likelihood"] is not None and np.isfinite(r["z_likelihood"])]
    gain = []
    for strength, point in sorted({(r["strength"], r["working_point"]) for r in mine if r["signal"] != NO_SIGNAL}):
        here = [r for r in mine if (r["strength"], r["working_point"]) == (strength, point)]
        instances = sorted({r["instance"] for r in here})
        without = np.array([_ratio([r for r in here if r["instance"] != k]) for k in instances])
        error = np.sqrt((len(instances) - 1) * np.mean((without - without.mean()) ** 2))
        entry = {"strength": strength, "working_point": point, "runs": len(here), "ratio": _ratio(here)}
        gain.append(entry | {"error": float(error), "better": sum(r["z_likelihood"] > r["z_after"] for r in here)})
    none = {r["instance"]: r["z_likelihood"] for r in mine if r["signal"] == NO_SIGNAL}
    return {"gain": gain, "null": [none[k] for k in sorted(none)]}


def results_of(summary: dict[str, Any]) -> list[dict[str, Any]]:
    """Mean and standard error of SIC and significances for each way, signal, strength and cut, the paper's beside."""
    every = [e for e in summary["results_all_working_points"] if e["signal"] != NO_SIGNAL]
    loosest = max(e["working_point"] for e in every)
    out = []
    for e in every:
        entry = {k: e[k] for k in ("embedding", "method", "signal", "strength", "working_point", "instances")}
        entry |= {
            k: {"mean": e[k]["mean"], "error": e[k]["standard_error"]} if e[k] else None
            for k in ("sic", "z_before", "z_after", "z_likelihood", "truth_after")
        }
        where = "loose" if e["working_point"] == loosest else "tight"
        entry["paper_sic"] = PAPER.get((e["signal"], where)) if is_main(e) and e["strength"] == 1 else None
        out.append(entry)
        print(
            f"| {e['embedding']} {e['method']} | `{e['signal']}` | {e['strength']:g} | {e['working_point']:.1%} | "
            f"{e['instances']} | {with_error(e['sic'], 1)} | {with_error(e['z_after'], 1)} | "
            f"{entry['paper_sic'] or '–'} |"
        )
    return out


def print_compared(entries: list[dict[str, Any]]) -> None:
    """One line a comparison."""
    for c in entries:
        print(
            f"{' '.join(c['one'])} / {' '.join(c['other'])}, {c['signal']} at {c['strength']:g}, "
            f"{c['working_point']:.1%}: {c['ratio']:.2f} ({plus_minus(c['difference'], c['error'])})"
        )


def main(folder: Path, name: str = "contrastive") -> None:
    """Read summary and ledger of ``folder``; write the record and print its table."""
    summary = read_json(folder / "summary.json")
    path = record_path(summary, name)
    book = Ledger(folder / "ledger")
    rows = [r for r in book.rows(summary["keys"]) if r["status"] == "ok"]
    points = sorted({r["working_point"] for r in rows}, reverse=True)
    sculpting = [
        r["sculpting_p"]
        for r in rows
        if (r["embedding"], r["method"]) == ("id", "cathode")
        and r["signal"] == NO_SIGNAL
        and r["working_point"] == points[0]
    ]
    record = {
        "date": summary["date"],
        "versions": summary["versions"],
        "config_hash": summary["config_hash"],
        "seed": rows[0]["seed"],
        "code": summary["code"],
        **{k: summary[k] for k in ("look", "choice_hash")},
        "closure_auc": summary["closure_auc"],
        "instance_overlap": summary["instance_overlap"],
        "null": [null_of(rows, p) for p in points],
        "sculpting_p_values": sculpting,
        "results": results_of(summary),
        "compared": compared(rows),
        "likelihood": likelihood(rows),
        "steered": summary["steered"],
        "stage_seconds": summary["stage_seconds"],
    }
    record |= {"worlds": summary["worlds"]} if "worlds" in summary else {}
    print_compared(record["compared"])
    print(record["likelihood"])
    for null in filter(None, record["null"]):
        print({k: v for k, v in null.items() if k != "z"})
    print("closure", with_error(summary["closure_auc"], 4), "sculpting p", np.round(sculpting, 2))
    write_json(path, record)


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
