"""`raypipe new`: a commented configuration to begin with, of a shipped one or proposed for a user's own table."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from raypipe.cli.base import FILE, NUMBER, Searching, forbid, shown, tell
from raypipe.errors import UserError
from raypipe.kinds import KINDS

OF_TABLE = ("mass", "window", "features", "key")  # Options


@click.command(cls=Searching)
@click.argument("search")
@click.argument("files", nargs=-1, metavar="[FILE]...")
@shown("-o", "--output", type=FILE, default=Path("search.yaml"), help="File to write.")
@click.option("--force", is_flag=True, help="Write over a file that is there.")
@click.option("--size", help="Shipped configuration to begin with, such as laptop (the default), demo, study.")
@click.option("--mass", metavar="COL", help="Mass column; else one that is called like a mass.")
@click.option("--window", type=(NUMBER, NUMBER), metavar="LOW HIGH", help="Signal region, in the unit of the mass.")
@click.option("--features", metavar="COL,COL,...", help="Features; else all columns that can be.")
@click.option("--key", help="HDF5 dataset or ROOT tree, where a file has several.")
def new(search: str, files: tuple[str, ...], output: Path, force: bool, size: str | None, **given: Any) -> None:
    """Write a commented configuration of SEARCH, for `raypipe search --config`.

    For a search on your own table FILE is looked into. On a terminal you are asked for mass and signal region, with a
    proposal; elsewhere proposals stand where no option does. They come from quantiles of the mass and from events of
    the sidebands, never from an excess. Other searches extend a shipped configuration, with the keys to change first.

    \b
    Examples:
      raypipe new table events.parquet --mass m_jj --window 3300 3700
      raypipe new contrastive --size demo -o my.yaml
    """
    from raypipe.config.load import given_values, model_of
    from raypipe.config.shipped import commented, first_values, plain, shipped
    from raypipe.config.table import TableConfig
    from raypipe.files import check_file_writable, write_text
    from raypipe.search.propose import proposed

    if search not in KINDS or "search" not in KINDS[search].commands:
        known = ", ".join(name for name, kind in KINDS.items() if "search" in kind.commands)
        raise UserError(f"search {search!r}: known searches: {known}")
    sizes, model = shipped(search), model_of(search)
    if size is not None and size not in sizes:
        raise UserError(f"--size {size}: the search {search} has {', '.join(sizes) or 'no shipped configuration'}")
    if bool(files) != (reads := issubclass(model, TableConfig)):
        told = "expected FILE, your table" if reads else f"{files[0]}: this search reads no table"
        raise UserError(f"raypipe new {search}: {told}")
    if check_file_writable(output).exists() and not force:
        raise UserError(f"{output}: is there already: give another --output, or overwrite it with --force")
    base = sizes.get(size or "laptop", next(iter(sizes.values()), None))
    head = [f"# Written by `raypipe new {search}`; every key: `raypipe config search={search}`. To run it:"]
    head += [f"#   raypipe search --config {output}"]
    if reads:
        values, notes = proposed(files, ask=_asked, **given)
        taken = given_values(base, ())[1] if base else {}
        left = {k: v for k, v in taken.items() if not k.startswith(("search", "data.", "window.")) and k not in values}
        values = {"output": "", "seed": 1} | values | left
        told = "# PROPOSAL: from names, quantiles of the mass and sidebands; nothing else of the signal region is used."
        head += [told, f"search: {search}"]
    else:
        forbid(OF_TABLE, f"{{}} has no effect: the search {search} reads no table")
        values, notes = first_values(search, base), {}
        head += [f"extends: {plain(str(base))}" if base else f"search: {search}"]
    values["output"] = f"runs/{output.stem}"
    write_text(output, "\n".join([*head, "", *commented(values, model, notes)]) + "\n")
    tell(f"{output}: written; read it, change it, then: raypipe search --config {output}")


def _asked(question: str, proposal: Any) -> Any:
    """The answer of whoever sits at a terminal; elsewhere the proposal."""
    return click.prompt(question, default=proposal, err=True) if sys.stdin.isatty() else proposal
