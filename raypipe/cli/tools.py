"""Commands about the machine, the configuration and the speed: doctor, config, bench."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import click

from raypipe.cli.base import FILE, Asked, emit, options, shown, tell
from raypipe.errors import UserError, redact
from raypipe.files import check_file_writable, read_json, write_json


@click.command()
@options(
    config="Also check what this configuration needs.",
    required=False,
    output=None,
    json="Print the checks as JSON on standard output.",
)
def doctor(asked: Asked) -> None:
    """Check packages, Ray, disk, threads, GPU, storage and tracking, and say how to mend what is wrong.

    \b
    Example:
      raypipe doctor --config configs/contrastive/laptop.yaml
      raypipe doctor --config configs/lhco/laptop.yaml data.path=events.h5
    """
    from raypipe.cluster.doctor import examine
    from raypipe.config import load_config

    if asked.overrides and asked.path is None:
        raise UserError("doctor: overrides change a configuration: name one with --config")
    checks = examine(load_config(asked.path, asked.overrides) if asked.path else None)
    for check in checks:
        tell(f"{check.status:5s} {check.name}: {check.found}")
        if check.remedy:
            tell(f"      -> {check.remedy}")
    asked.emit([vars(check) for check in checks])
    if any(check.status == "wrong" for check in checks):
        sys.exit(1)


@click.command()
@options(config="Show the keys and values of this file.", required=False, output=None, json=None)
def config(asked: Asked) -> None:
    """List every configuration key with its default, unit and origin: those of all searches, or of one.

    With a file or overrides the values that differ from the defaults stand before them. `search=NAME` alone lists the
    keys of that search.

    \b
    Example:
      raypipe config | grep flow
      raypipe config search=haxad
      raypipe config --config configs/lhco/laptop.yaml flow.epochs=50
    """
    from raypipe.config.load import given_values
    from raypipe.kinds import KINDS

    if asked.path is not None or asked.overrides:
        _list_keys(*given_values(asked.path, asked.overrides))
        return
    for search in KINDS:
        click.echo(f"# search: {search}")
        _list_keys(search, {})


def _list_keys(search: str, values: dict[str, Any]) -> None:
    """Print the keys of a search; ``values`` are those that were given, by dotted key."""
    from raypipe.config.base import fields
    from raypipe.config.load import model_of

    for key, info, default in fields(model_of(search)):
        # NAME and N stand for what a mapping or a list holds.
        pattern = re.compile(re.escape(key).replace("NAME", "[^.]+").replace(r"\.N\.", r"\.[0-9]+\."))
        given = [f"{name} = {redact(str(value))}" for name, value in values.items() if pattern.fullmatch(name)]
        for head in given or [key]:
            text = "required" if default is ... else repr(default)
            click.echo(f"{head} ({text}): {' '.join((info.description or '').split())}")


@click.command()
@click.argument("names", nargs=-1, metavar="[NAME]...")
@click.option("--smoke", is_flag=True, help="Tiny sizes: shows that every bench runs; its ratios mean nothing.")
@shown("--output", type=FILE, default=Path("runs/bench"))
@click.option("--list", "list_only", is_flag=True, help="Print the names and leave.")
@click.option("--table", is_flag=True, help="Print the table of the record in --output (measures nothing) and leave.")
@click.option("--json", "as_json", is_flag=True, help="Print the measurements as JSON on standard output.")
def bench(names: tuple[str, ...], smoke: bool, output: Path, list_only: bool, table: bool, as_json: bool) -> None:
    """Measure stages against their plain counterparts, in one run; writes bench.json into --output.

    \b
    Example:
      raypipe bench ensemble simulate --json
    """
    from raypipe.bench.base import BENCHES, markdown_table, run_bench, timed, versions

    if list_only:
        click.echo("\n".join(BENCHES))
        return
    path = output / "bench.json"
    if table and not path.is_file():
        raise UserError(f"{path}: no record yet; run `raypipe bench` first")
    if table:
        click.echo(markdown_table(read_json(path)))
        return
    if unknown := [name for name in names if name not in BENCHES]:
        raise UserError(f"no bench {unknown[0]!r}: there are {', '.join(BENCHES)}")
    check_file_writable(path)
    record = read_json(path) if path.is_file() else {"benches": {}}
    for name in names or BENCHES:
        took, measured = timed(lambda name=name: run_bench(name, smoke))
        rows = [measurement.row() for measurement in measured]
        record["benches"][name] = {"rows": rows, "smoke": smoke, "versions": versions(), "seconds": took}
        write_json(path, record)  # after every bench, so that an interrupted run keeps what it has
        for row in rows:
            bound = "" if row["target"] is None else f"  asked {'<=' if row['at_most'] else '>='} {row['target']:g}"
            spread = f"{row['ratio']:.2f} ({row['ratio_min']:.2f}-{row['ratio_max']:.2f})"
            tell(f"{row['name']}: {spread} {row['meaning']}{bound}")
    emit(record, as_json)
