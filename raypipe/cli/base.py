"""What the commands share: the group that prints errors as one line, the common options, output."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from raypipe.cli.signals import STATUS, Terminated, terminable
from raypipe.errors import UserError

if TYPE_CHECKING:  # every command starts here: what only some of them need is imported where it is used
    from raypipe.config import Config


class Commands(click.Group):
    """Prints a `UserError` as one line and leaves with status 2."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            with terminable():
                return super().invoke(ctx)
        except UserError as error:
            click.echo(f"raypipe: error: {error}", err=True)
            sys.exit(2)
        except Terminated:
            sys.exit(STATUS)
        except KeyboardInterrupt:
            click.echo("raypipe: interrupted; run the same command again to go on", err=True)
            sys.exit(130)


def options(command: Callable) -> Callable:
    """--config, overrides, --output and --json, common to the stages."""
    for decorate in (
        click.argument("overrides", nargs=-1, metavar="[KEY=VALUE]..."),
        click.option("--json", "as_json", is_flag=True, help="Print the result as JSON on standard output."),
        click.option("--output", type=click.Path(path_type=Path), help="Run folder; wins over the configuration."),
        click.option("--config", "path", type=click.Path(path_type=Path), required=True, help="YAML of the search."),
    ):
        command = decorate(command)
    return command


def load(path: Path, output: Path | None, overrides: tuple[str, ...]) -> Config:
    from raypipe.config import load_config

    extra = [f"output={json.dumps(str(output))}"] if output else []
    return load_config(path, [*overrides, *extra])


def load_search(path: Path, output: Path | None, overrides: tuple[str, ...]) -> Config:
    """As `load`, but a configuration that only simulates is refused."""
    config = load(path, output, overrides)
    if config.search == "none":
        raise UserError(f"{path}: search = none: this configuration only simulates (raypipe simulate)")
    return config


def emit(value: Any) -> None:
    click.echo(json.dumps(value, indent=2, allow_nan=False))
