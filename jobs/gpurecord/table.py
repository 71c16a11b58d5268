"""What a GPU record says, as Markdown: ``python jobs/gpurecord/table.py RECORD.json``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from gpurecord.ladder import INPUTS, LADDER
from raypipe.files import read_json


def markdown(record: dict[str, Any]) -> str:
    """One table of what was measured beside its goal, and one of SIC with both encoders."""
    steps = record["steps"]
    speed, flows, networks = (steps[name] for name in ("encoder speed", "flows", "networks"))
    machine = speed["machine"]
    agreeing = [row["ok"] for row in steps["correctness"]["comparisons"].values()]
    trained = steps["encoders"]["paper"]
    lines = [
        f"On one {machine['card']}, torch {machine['torch']}, {machine['date']}:",
        "",
        "| what | measured | goal |",
        "|---|---|---|",
        f"| CPU against GPU, outputs and gradients | {sum(agreeing)} of {len(agreeing)} within their limits | all |",
        f"| encoder of the paper's size ({speed['parameters']:,} parameters), batch {speed['batch']}, bf16, compiled | "
        f"{speed['events_per_second']:,.0f} events/s | – |",
        f"| the same, against plain eager fp32 | {speed['speed_up']:.1f}x | 4x |",
        f"| the same, share of the card's bf16 matrix-product rate | {100 * speed['share_of_peak']:.0f} % | 40 % |",
        f"| {flows['sets'] * flows['members']} flows of {flows['sets']} data sets as one stack, against one by one | "
        f"{flows['stack']['speed_up']:.0f}x, compiled {flows['compiled stack']['speed_up']:.0f}x | 15x |",
        f"| {networks['networks']} networks of paper B, MLC / BCE | {networks['mlc']['networks_per_minute']:,.0f} / "
        f"{networks['bce']['networks_per_minute']:,.0f} a minute | 1,000 |",
        f"| {trained['steps']:,} steps of the encoder, {trained['training_events']:,} events | "
        f"{trained['seconds']:.0f} s | – |",
    ]
    return "\n".join([*lines, "", *_sic(steps["sic"]["sic"])])


def _sic(rows: list[dict[str, Any]]) -> list[str]:
    """SIC of every signal, paper's encoder / laptop's encoder, with the error of the finite evaluation sample."""
    ways = [(method, point) for method in ("supervised", "idealised") for point in sorted({r["point"] for r in rows})]
    ways.sort(key=lambda way: (way[0] != "supervised", -way[1]))
    lines = [
        "| SIC, encoder of the paper's size / laptop's | " + " | ".join(f"{m}, {100 * p:g} %" for m, p in ways) + " |",
        "|---" * (1 + len(ways)) + "|",
    ]
    for signal in dict.fromkeys(row["signal"] for row in rows):
        cells = []
        for way in ways:
            found = {r["encoder"]: r for r in rows if (r["signal"], r["method"], r["point"]) == (signal, *way)}
            cells.append(" / ".join(_value(found[name]) for name in ("paper", "laptop")))
        lines.append(f"| `{signal}` | " + " | ".join(cells) + " |")
    return lines


def _value(row: dict[str, Any]) -> str:
    return "–" if row["sic"] is None else f"{row['sic']:.1f} ± {row['error_events'] or 0:.1f}"


def ladder(record: dict[str, Any]) -> str:
    """SIC in the latent spaces of the ladder's encoders, ± its error over trainings."""
    rows = record["steps"]["ladder"]["sic"]
    found = {(r["step"], r["view"], r["signal"], r["point"]): r for r in rows}
    steps = list(dict.fromkeys(r["step"] for r in rows))
    cuts = sorted({r["point"] for r in rows}, reverse=True)
    shown = [*(("draw", cut) for cut in cuts), ("mean", cuts[-1])]
    ways = [(signal, view, cut) for signal in sorted({r["signal"] for r in rows}) for view, cut in shown]
    words = {"draw": "", "mean": ", means"}
    lines = [
        "| encoder | " + " | ".join(f"`{signal}`, {100 * p:g} %{words[v]}" for signal, v, p in ways) + " |",
        "|---" * (1 + len(ways)) + "|",
    ]
    for step in [s for s in LADDER if s in steps]:
        lines.append(f"| {step} | " + " | ".join(_trained(found.get((step, v, s, p))) for s, v, p in ways) + " |")
    bound = [_value(found[INPUTS, "inputs", s, p]) if (INPUTS, "inputs", s, p) in found else "–" for s, _, p in ways]
    lines.append(f"| {INPUTS} | " + " | ".join(bound) + " |")
    return "\n".join(lines)


def _trained(row: dict[str, Any] | None) -> str:
    if row is None:
        return "–"
    return f"{row['sic']:.1f}" + ("" if row["error_training"] is None else f" ± {row['error_training']:.1f}")


if __name__ == "__main__":
    print(markdown(read_json(Path(sys.argv[1]))))
