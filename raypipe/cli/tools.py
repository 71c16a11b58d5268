"""Commands about the machine and the configuration: doctor, config."""

import re
import sys
from typing import Any

import click

from raypipe.cli.base import Asked, options, tell
from raypipe.errors import UserError, redact


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
    checks = []
    for check in examine(load_config(asked.path, asked.overrides) if asked.path else None):
        checks.append(check)
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
