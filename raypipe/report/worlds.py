"""What a search says where the data come from another world than the simulation (`raypipe.events.worlds`)."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from raypipe.report.summary import quote
from raypipe.search.diphoton import WORLD
from raypipe.search.result import NO_SIGNAL

Row = dict[str, Any]
POINT = ("signal", "strength", "working_point")


def worlds(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """One entry a world, signal, strength and cut, from the finished rows of a scan; none without other worlds.

    ``z_bias``: z after the cut less that of the same pseudo-data set in the nominal world, its mean with the error over
    instances (None where no set has both). ``sic_ratio``: SIC over the nominal one. ``coverage_68``: share of instances
    whose true background is within one standard error of the expected one.
    """
    nominal = {_place(row): row for row in rows if row["embedding"] == "id" and row["method"] == "cathode"}
    groups: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        if world := row["embedding"].partition(WORLD)[2]:
            groups.setdefault((world, *(row[name] for name in POINT)), []).append(row)
    return [dict(zip(("world", *POINT), of, strict=True)) | _entry(mine, nominal) for of, mine in groups.items()]


def _place(row: Row) -> tuple[Any, ...]:
    return *(row[name] for name in POINT), row["instance"]


def _entry(rows: Sequence[Row], nominal: Mapping[tuple[Any, ...], Row]) -> dict[str, Any]:
    pairs = [(row, nominal[_place(row)]) for row in rows if _place(row) in nominal]
    pulls = np.array([row["background_pull"] for row in rows], float)
    entry: dict[str, Any] = {"instances": len(rows), "coverage_68": float((np.abs(pulls) < 1).mean())}
    entry |= {name: quote(rows, name) for name in ("z_after", "background_pull")}
    entry["z_bias"] = quote([a | {"z_bias": a["z_after"] - b["z_after"]} for a, b in pairs], "z_bias")
    injected = [(a["sic"], b["sic"]) for a, b in pairs if b["sic"] > 0 and b["signal"] != NO_SIGNAL]
    return entry | {"sic_ratio": quote([{"sic_ratio": sic / nominal} for sic, nominal in injected], "sic_ratio")}
