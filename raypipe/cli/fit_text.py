"""The results of fit and hunt in a few lines, and options that would have no effect."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from raypipe.cli.base import forbid


def refuse(reason: str, *names: str) -> None:
    """Raise a `UserError` if one of the options ``names`` was given: ``reason`` says why it has no effect."""
    forbid(names, f"{{}} has no effect {reason}: leave it out")


def refuse_names(path: Path) -> None:
    """Names of columns and trees that would be passed over, told before the file is read."""
    given = click.get_current_context().params
    if path.suffix.lower() not in (".root", ".h5", ".hdf5", ".hdf"):
        refuse(f"on {path.name}, only ROOT and HDF5 files hold several tables", "tree")
    if given["branch"] is not None:
        refuse("beside --branch", "column")
    if given["column"] is not None:
        refuse("beside --column, which names the masses or the contents", "x", "y")


def refuse_reading(path: Path, events: bool, density: bool, background: str | None) -> None:
    """Options of reading and fitting that do nothing for these data.

    ``events``: the file holds event masses; ``density``: ``--density`` may be meant for another file; ``background``:
    the families, or None where a reference takes their place.
    """
    if events:
        what = f"on the event masses of {path.name}, it is for histograms"
        refuse(what, "x", "y", "error", "scale", "likelihood", *([] if density else ["density"]))
    if background is None:
        refuse("with --reference, which takes its place", "background")
    if background is None or not ("dijet" in background or "diphoton" in background):
        refuse("on this background, dijet and diphoton functions use it", "sqrt_s")


def _head(row: dict[str, Any], more: str = "") -> str:
    low, high = row["window"]
    events = f"{row['n_events']:g} events in {low:g}-{high:g}, {row['bins']} bins{more}"
    return f"status      {row['status']} ({row['likelihood']}, {events})"


def describe(row: dict[str, Any]) -> list[str]:
    """The result of a fit."""
    lines, found, floating, background = [_head(row)], row.get("peak", {}), "global" in row, row["background"]
    if row["s"] is not None:
        lines.append(f"s           {row['s']:.5g} ± {row['s_err']:.3g}  ({row['yield']})")
    lines.append(f"b           {row['b']:.6g} ± {row['b_err']:.3g}")
    if any(f"{name}_err" in found for name in ("mass", "width")):
        errors = {name: found[f"{name}_err"] for name in ("mass", "width")}
        told = [f"{name} {found[name]:.6g}{'' if e is None else f' ± {e:.2g}'}" for name, e in errors.items()]
        lines.append(f"peak        {', '.join(told)}")
    if row["s"] is not None:
        lines.append(f"q0, Z, p0   {row['q0']:.4g}, {row['z']:.3f}, {row['p0']:.3g}{' (local)' if floating else ''}")
    if row.get("global"):
        lines.append(f"global      {_in_words(row['global'])} (toys)")
    if row.get("upper_limit") is not None:
        expected = f"(expected {row['expected_limit']:.4g})"
        lines.append(f"limit       s < {row['upper_limit']:.4g} at {row['limit_level']:.0%} CLs {expected}")
    if row["chi2"] is not None:
        tail = "" if row["gof_p"] is None else f", p {row['gof_p']:.3g}"
        lines.append(f"chi2/ndf    {row['chi2']:.2f}/{row['ndf']}{tail}")
    parameters = ", ".join(f"{k} = {v:.5g} ± {e:.2g}" for k, (v, e) in background["parameters"].items())
    lines.append(f"background  {background['family']}: {parameters}")
    lines += _choice(background.get("chosen_by"), background.get("compared"))
    for name, (v, e) in row["components"].items():
        lines.append(f"component   {name}: {v:.4g}" + ("" if e < 1e-7 * abs(v) else f" ± {e:.3g}"))
    if count := row.get("signal_region"):
        z = "" if count["z"] is None else f", Z {count['z']:.3f}"
        low, high = count["window"]
        counts = f"{count['n']:g} counted, {count['b']:.5g} ± {count['b_err']:.3g} expected{z}"
        lines.append(f"region      {low:g}-{high:g}: {counts}")
    if floating or count:
        lines.append(_quote(row["quote"]))
    return lines + [f"note        {note}" for note in row["notes"]]


def describe_hunt(row: dict[str, Any]) -> list[str]:
    """The result of a hunt."""
    best, found, estimate = row["best"], row["global"], row["global"]["asymptotic"]
    fitted = f"s {best['s']:.5g} ± {best['s_err']:.3g}, local Z {best['z']:.3f}, p {best['p_local']:.3g}"
    toys = [f"global      {_in_words(found['toys'])} ({found['number_of_toys']} toys)"] if found["toys"] else []
    return [
        _head(row, f", {len(row['scan']['mass'])} masses x {len(row['scan']['widths'])} widths"),
        f"background  {row['background']}: chi2/ndf {row['chi2_background_only']:.2f}/{row['ndf']} without a peak",
        f"best        mass {best['mass']:.6g}, width {best['width']}: {fitted}",
        *toys,
        f"global      {_in_words(estimate)} (estimate: {estimate['method']} in {found['asymptotic_from']})",
        _quote(row["quote"]),
        *_choice(row["background_chosen_by"], row["backgrounds_compared"]),
        *(f"peak        {p['mass']:.6g} (width {p['width']}): {p['z']:.2f} sigma local" for p in row["peaks"]),
        *(f"note        {note}" for note in row["notes"]),
    ]


def _in_words(found: dict[str, Any]) -> str:
    from raypipe.stats.lookelsewhere import in_words

    return in_words(found)


def _quote(quote: dict[str, Any] | None) -> str:
    """Which of several significances to quote."""
    if quote is None:
        return "quote       nothing yet: Z is local, a global p-value needs --toys"
    return f"quote       {_in_words(quote)} ({quote['which']})"


def _choice(by: str | None, compared: list[dict[str, Any]] | None) -> list[str]:
    """How the background was chosen, in one line."""
    if by is None or compared is None:
        return []
    if by == "spurious signal":
        by += " (largest share of the error)"
        told = [f"{c['family']} {c['largest']:.2f}" for c in compared]
    else:
        told = [c["family"] + ("" if c["p"] is None else f" (p {c['p']:.2g})") for c in compared]
    return [f"chosen      by {by}: {', '.join(told)}"]


def failure(row: dict[str, Any], reference: bool, events: bool) -> str:
    """What to say of a hunt that did not converge: where, and what can help."""
    where = "; ".join(note for note in row["notes"] if "converge" in note)
    wider = ["fewer --bins"] if events else []
    remedies = [*wider, "a larger simulation"] if reference else ["another background", *wider]
    return f"raypipe: {where}: do not use these numbers; try {' or '.join(remedies)}, or --mask that range"
