"""`raypipe bench`: ratios against what a user would otherwise run."""

from __future__ import annotations

import time
from pathlib import Path

import click

from raypipe.cli.base import emit
from raypipe.errors import UserError
from raypipe.files import check_file_writable, read_json, write_json


@click.command()
@click.argument("names", nargs=-1, metavar="[NAME]...")
@click.option("--smoke", is_flag=True, help="Tiny sizes: shows that every bench runs; its ratios mean nothing.")
@click.option("--output", type=click.Path(path_type=Path), default=Path("runs/bench"), show_default=True)
@click.option("--list", "list_only", is_flag=True, help="Print the names and leave.")
@click.option("--table", is_flag=True, help="Print the table of the record in --output (measures nothing) and leave.")
@click.option("--json", "as_json", is_flag=True, help="Print the measurements as JSON on standard output.")
def bench(names: tuple[str, ...], smoke: bool, output: Path, list_only: bool, table: bool, as_json: bool) -> None:
    """Measure stages against their plain counterparts, in one run; writes bench.json into --output.

    \b
    Example:
      raypipe bench ensemble simulate --json
    """
    from raypipe.bench.base import BENCHES, markdown_table, run_bench, versions

    if list_only:
        click.echo("\n".join(BENCHES))
        return
    path = output / "bench.json"
    if table:
        if not path.is_file():
            raise UserError(f"{path}: no record yet; run `raypipe bench` first")
        click.echo(markdown_table(read_json(path)))
        return
    unknown = [name for name in names if name not in BENCHES]
    if unknown:
        raise UserError(f"no bench {unknown[0]!r}: there are {', '.join(BENCHES)}")
    check_file_writable(path)
    record = read_json(path) if path.is_file() else {"benches": {}}
    for name in names or BENCHES:
        began = time.perf_counter()
        rows = [measurement.row() for measurement in run_bench(name, smoke)]
        took = time.perf_counter() - began
        record["benches"][name] = {"rows": rows, "smoke": smoke, "versions": versions(), "seconds": took}
        write_json(path, record)  # after every bench, so that an interrupted run keeps what it has
        for row in rows:
            bound = "" if row["target"] is None else f"  asked {'<=' if row['at_most'] else '>='} {row['target']:g}"
            spread = f"{row['ratio']:.2f} ({row['ratio_min']:.2f}-{row['ratio_max']:.2f})"
            click.echo(f"{row['name']}: {spread} {row['meaning']}{bound}", err=True)
    if as_json:
        emit(record)
