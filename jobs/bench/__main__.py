"""Measure stages against their plain counterparts, side by side in one run: `python jobs/bench [NAME]...`.

It writes bench.json into --output after every bench, so that an interrupted run keeps what it has.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click

if __name__ == "__main__":
    # Python has put this folder there, and its modules are called like others.
    sys.path[0] = str(Path(__file__).resolve().parents[1])
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # before NumPy: two cores must not fight


@click.command()
@click.argument("names", nargs=-1, metavar="[NAME]...")
@click.option("--smoke", is_flag=True, help="Tiny sizes: shows that every bench runs; its ratios mean nothing.")
@click.option("--output", type=click.Path(path_type=Path), default=Path("runs/bench"), show_default=True)
@click.option("--list", "list_only", is_flag=True, help="Print the names and leave.")
@click.option("--table", is_flag=True, help="Print the table of the record in --output (measures nothing) and leave.")
def main(names: tuple[str, ...], smoke: bool, output: Path, list_only: bool, table: bool) -> None:
    """Measure stages against their plain counterparts, in one run; writes bench.json into --output.

    \b
    Example:
      python jobs/bench ensemble simulate
    """
    from bench.base import BENCHES, markdown_table, run_bench, timed, versions
    from raypipe.errors import UserError
    from raypipe.files import check_file_writable, read_json, write_json

    path = output / "bench.json"
    if list_only:
        click.echo("\n".join(BENCHES))
        return
    if table and not path.is_file():
        raise click.UsageError(f"{path}: no record yet; run `python jobs/bench` first")
    if table:
        click.echo(markdown_table(read_json(path)))
        return
    if unknown := [name for name in names if name not in BENCHES]:
        raise click.UsageError(f"no bench {unknown[0]!r}: there are {', '.join(BENCHES)}")
    try:
        check_file_writable(path)
    except UserError as error:
        raise click.UsageError(str(error)) from error
    record = read_json(path) if path.is_file() else {"benches": {}}
    for name in names or BENCHES:
        took, measured = timed(lambda name=name: run_bench(name, smoke))
        rows = [measurement.row() for measurement in measured]
        record["benches"][name] = {"rows": rows, "smoke": smoke, "versions": versions(), "seconds": took}
        write_json(path, record)
        for row in rows:
            bound = "" if row["target"] is None else f"  asked {'<=' if row['at_most'] else '>='} {row['target']:g}"
            spread = f"{row['ratio']:.2f} ({row['ratio_min']:.2f}-{row['ratio_max']:.2f})"
            click.echo(f"{row['name']}: {spread} {row['meaning']}{bound}")


if __name__ == "__main__":
    main(prog_name="python jobs/bench")
