"""Tables of HEPData: its YAML, and its CSV, where a file holds one table after the other."""

import csv
import io
from itertools import groupby
from typing import Any

import numpy as np

from raypipe.errors import UserError


def join_tables(text: str) -> str:
    """The first table of a CSV file of HEPData, beside it the columns of those that follow with the same bins."""
    lines = [line.strip() for line in text.replace("\r", "").split("\n")]
    comments = [line for line in lines if line.startswith("#")]
    blocks = groupby((line for line in lines if not line.startswith("#")), key=bool)
    first, *others = [list(csv.reader(block)) for full, block in blocks if full] or [[]]
    joined = first
    for table in others:
        same = next((k for k, (a, b) in enumerate(zip(first[0], table[0], strict=False)) if a != b), 0)
        if same and [row[:same] for row in table] == [row[:same] for row in first]:
            joined = [[*a, *b[same:]] for a, b in zip(joined, table, strict=True)]
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows(joined)
    return "\n".join([*comments, out.getvalue()])


def from_yaml(value: Any) -> dict[str, Any]:
    """Columns of a HEPData YAML table: low, high (or x), y and its errors; then every variable under its own name."""
    if not isinstance(value, dict) or "dependent_variables" not in value:
        raise UserError("not a HEPData table (no dependent_variables)")
    axis, variables = value["independent_variables"][0]["values"], value["dependent_variables"]
    edges = {"low": "low", "high": "high"} if "low" in axis[0] else {"x": "value"}
    columns: dict[str, Any] = {name: [a[key] for a in axis] for name, key in edges.items()}
    for k, variable in enumerate([variables[0], *variables]):
        name = "y" if k == 0 else str(variable["header"]["name"])
        if name in columns or (k > 0 and len(variables) == 1):
            continue
        rows = variable["values"]
        columns[name] = [np.nan if row["value"] == "-" else row["value"] for row in rows]
        sides = [_sides(row.get("errors", []), row["value"]) for row in rows]
        if any(up or down for up, down in sides):
            columns |= {f"{name} +": [up for up, _ in sides], f"{name} -": [down for _, down in sides]}
    arrays = {name: np.array(values, float) for name, values in columns.items()}
    given = np.isfinite(arrays["y"])  # "-": nothing published in this bin
    return {name: values[given] for name, values in arrays.items()} if given.any() else arrays


def _sides(errors: list[dict[str, Any]], value: Any) -> tuple[float, float]:
    """Upper and lower error: quadratic sums of the statistical ones if any are called so, else of all."""
    statistical = [error for error in errors if "stat" in str(error.get("label", "")).lower()]
    up = down = 0.0
    for error in statistical or errors:
        both = error["asymerror"] if "asymerror" in error else dict.fromkeys(("plus", "minus"), error["symerror"])
        sizes = both["plus"], both["minus"]
        up, down = (np.hypot(s, _size(size, value)) for s, size in zip((up, down), sizes, strict=True))
    return float(up), float(down)


def _size(text: Any, value: Any) -> float:
    """An error, also in percent of the value."""
    if isinstance(text, str) and text.strip().endswith("%"):
        return abs(float(text.strip().rstrip("%")) / 100 * float(value))
    return abs(float(text))
