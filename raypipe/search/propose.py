"""A search on a user's table, proposed: the window by quantiles of the mass, features by names and in the sidebands."""

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import rankdata

from raypipe.config.read import Source
from raypipe.config.sections import MassWindow
from raypipe.errors import UserError
from raypipe.events.readers.base import resolve
from raypipe.events.readers.features import OWN
from raypipe.events.readers.matrix import LABEL_NAMES, Columnar, read_columns
from raypipe.events.readers.registry import reader_for

MASS = re.compile("m|mass|m_?(jj|yy|gg|gamgam|ll|ee|mumu|4l|inv)|(inv|invariant|dijet|diphoton)_?mass", re.IGNORECASE)
ID = re.compile("(event|evt|run|lumi)_?(id|number|nr)?|luminosityblock|id|index|entry|row", re.IGNORECASE)
WEIGHT = re.compile("w|((event|gen|mc)_?)?weights?", re.IGNORECASE)
COPY, STRONG = 0.999, 0.3  # Rank correlations with the mass: of a function of it, and such as a user should know
Asked = Callable[[str, Any], Any]  # (question, proposal) -> the user's answer, or the proposal


def proposed(paths: Sequence[str], key: str | None, ask: Asked, **given: Any) -> tuple[dict, dict]:
    """Values by dotted key for a search on the table in ``paths``, and comments on them (lists of texts).

    ``given``: mass, window and features, or None as where `raypipe new` lacks the option. What cannot be searched is a
    `UserError`.
    """
    bad: dict[str, str] = {}
    table = read_columns(paths, Source(key=key), bad)
    names = reader_for(paths[0], Source(key=key)).names(Path(paths[0]), Source(key=key))
    column = lambda name: resolve(int(name) if name.isdigit() else name, names, table.name)  # noqa: E731
    place = lambda name: names.index(name) if name.isdigit() else name  # noqa: E731
    alike, there = [name for name in names if MASS.fullmatch(name)], ", ".join(names[:20])
    mass = given["mass"] or ask(f"Mass column ({there})", alike[0] if len(alike) == 1 else None)
    if mass is None:
        raise UserError(f"{table.name}: which column is the mass? Name it with --mass (columns: {there})")
    if (mass := column(mass.strip())) in bad:
        raise UserError(f"{table.name}: mass column {mass!r}: {bad[mass]}")
    masses, region, own = table.columns[mass], given["window"], None
    if region is None:
        own = tuple(edges(masses, None, table.name).values())[1:3]
        region = tuple(ask(f"Signal region, {'upper' if at else 'lower'} edge", edge) for at, edge in enumerate(own))
    window = edges(masses, region, table.name)
    usable, others = judged(table, mass, MassWindow(**window))
    others |= bad
    features = [column(name.strip()) for name in given["features"].split(",")] if given["features"] else list(usable)
    if wrong := [name for name in features if name not in usable]:
        raise UserError(f"{table.name}: feature {wrong[0]!r}: {others.get(wrong[0], 'it is the mass')}")
    told = [f"Left out: {name}: {why}." for name, why in others.items()]
    if not features:
        raise UserError(" ".join([f"{table.name}: no feature is left beside the mass {mass!r}.", *told]))
    strong = [name for name in features if abs(usable[name]) > STRONG]
    told += [
        f"{name}: rank correlation {usable[name]:+.2f} with the mass, cuts may bend its spectrum." for name in strong
    ]
    values = {"data.path": paths[0] if len(paths) == 1 else list(paths), "data.key": key}
    values |= {"data.columns.mass": place(mass), "data.columns.features": list(map(place, features))}
    values |= {"data.columns.label": None, "blind": None} | {f"window.{name}": edge for name, edge in window.items()}
    values["massfit.bin_width"] = float(f"{(window['high'] - window['low']) / 50:.2g}")
    # A blind search makes a signal region of a third of a sideband: the rest of it must know the smallest cut.
    few = np.histogram(masses, list(window.values()))[0][::2].min()
    values["selection.working_points"] = [cut for cut in (0.01, 0.001) if cut * few / 2 > 1] or [0.1]
    by = "PROPOSAL, by its name" if given["mass"] is None and mass in alike else "As given"
    notes = {f"window.{name}": [] for name in window} | {"data.columns.mass": [f"{by}."]}
    by = "a PROPOSAL, yours to choose before you look" if region == own else "as given"
    notes["window"] = [f"In the unit of the mass. The signal region is {by}; low and high are a PROPOSAL."]
    notes["data.columns.features"] = ["As given." if given["features"] else "PROPOSAL: all that can be.", *told]
    return values, notes | {"massfit.bin_width": ["PROPOSAL, in the unit of the mass."]}


def edges(masses: np.ndarray, region: tuple[float, float] | None, source: str) -> dict[str, float]:
    """`MassWindow` of (n,) masses: sidebands from their 1 % to their 99 % quantile, and the signal region.

    Unless given, that is the tenth of the masses around their median: no other number of the data is used. One that is
    not between two sidebands with events is a `UserError`.
    """
    masses = masses[masses > 0]
    cuts = np.quantile(masses, [0.01, 0.45, 0.55, 0.99]) if len(masses) else np.zeros(4)
    low, first, last, high = (float(f"{cut:.4g}") for cut in cuts)
    first, last = region or (first, last)
    low = low if low < first else float(masses.min(initial=first))
    high = high if high > last else float(masses.max(initial=last))
    sides = ((masses >= low) & (masses < first)).any(), ((masses >= last) & (masses < high)).any()
    if not (first < last and all(sides)):
        span = f"{masses.min():g} to {masses.max():g}" if len(masses) else "none above zero"
        rule = "LOW must be below HIGH, with masses on both sides as sidebands"
        raise UserError(f"{source}: signal region {first:g}-{last:g}: {rule} (masses: {span})")
    return {"low": low, "sr_low": first, "sr_high": last, "high": high}


def judged(table: Columnar, mass: str, window: MassWindow) -> tuple[dict[str, float], dict[str, str]]:
    """Rank correlation with the mass, in the sidebands, of what can be a feature, and why other columns cannot."""
    side, usable, others = window.beside(table.columns[mass]), {}, {}
    ranks, last = rankdata(table.columns[mass][side]), list(table.columns)[-1]
    for name, values in ((name, values[side]) for name, values in table.columns.items() if name != mass):
        whole, flag = (values == np.round(values)).all(), ((values == 0) | (values == 1)).all()
        if flag and (name.lower() in LABEL_NAMES or (name.isdigit() and name == last)):
            others[name] = "perhaps the truth (then `label`, which evaluates; such a search is not blind)"
        elif np.ptp(values) == 0:
            others[name] = f"always {values[0]:g}"
        elif whole and (ID.fullmatch(name) or (len(values) > 100 and len(np.unique(values)) == len(values))):
            others[name] = "whole numbers, called like an id or all different"
        elif WEIGHT.fullmatch(name):
            others[name] = "weights, but recorded events count one each"
        elif name in OWN:
            others[name] = "every table of raypipe has a column of that name, rename it"
        elif abs(correlation := float(np.corrcoef(rankdata(values), ranks)[0, 1])) > COPY:
            others[name] = f"a copy of the mass (rank correlation {correlation:.4f})"
        else:
            usable[name] = correlation
    return usable, others
