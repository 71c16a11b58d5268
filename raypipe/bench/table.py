"""The README's table of ratios, made from bench.json."""

from __future__ import annotations

from typing import Any


def _value(number: float) -> str:
    return f"{number:.2f}" if abs(number) < 10 else f"{number:.1f}"


def markdown_table(record: dict[str, Any]) -> str:
    """Markdown of a record of ``raypipe bench``: a line a measurement, medians with their range; no smoke runs. Below
    it, how long they took together."""
    lines = ["| bench | ratio: median (range) | asked | ours | reference |", "|---|---|---|---|---|"]
    for bench, entry in record["benches"].items():
        if entry["smoke"]:
            continue
        for row in entry["rows"]:
            spread = f"{_value(row['ratio_min'])}-{_value(row['ratio_max'])}"
            sign = "<=" if row["at_most"] else ">="
            asked = "" if row["target"] is None else f"{sign} {row['target']:g}: {'yes' if row['reached'] else 'no'}"
            lines.append(
                f"| `{bench}` {row['name']} | {_value(row['ratio'])} ({spread}) {row['meaning']} | {asked} "
                f"| {row['ours']:.3g} {row['unit']} | {row['reference']:.3g} {row['unit']} |"
            )
    seconds = [entry.get("seconds", 0.0) for entry in record["benches"].values() if not entry["smoke"]]
    return "\n".join([*lines, "", f"{len(seconds)} benches in {sum(seconds) / 60:.1f} minutes."])
