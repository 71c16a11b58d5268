"""What the commands share: the group that prints errors as one line, the common options, output."""

from __future__ import annotations

import json
import math
import os
import sys
import traceback
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields
from functools import partial, reduce, wraps
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from raypipe.cli.signals import STATUS, Terminated, terminable
from raypipe.errors import UserError, redact
from raypipe.kinds import BACKGROUNDS, KINDS, load_plugins


def searches(formatter: click.HelpFormatter) -> None:
    """The line of a help text that names all searches, those of plugins too."""
    load_plugins()
    names = [name for name, kind in KINDS.items() if "search" in kind.commands]
    formatter.write_paragraph()
    formatter.write_text(f"Searches (key `search` of a configuration): {', '.join(names)}.")


class Searching(click.Command):
    """A command that serves all searches."""

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        searches(formatter)


class Methods(click.Choice):
    """The ways to know the background, those of plugins too."""

    def __init__(self) -> None:
        super().__init__(())

    @property
    def choices(self) -> tuple[str, ...]:
        return tuple(BACKGROUNDS)

    @choices.setter
    def choices(self, value: Any) -> None:
        """The table decides."""


class Commands(click.Group):
    """Prints a `UserError` or a bad option as one line and leaves with status 2."""

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        searches(formatter)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            with terminable():
                return super().invoke(ctx)
        except UserError as error:
            click.echo(f"raypipe: error: {error}", err=True)
            sys.exit(2)
        except click.UsageError as error:
            command = f"raypipe {error.ctx.info_name}" if error.ctx and error.ctx.parent else "raypipe"
            click.echo(f"raypipe: error: {redact(error.format_message())} (see `{command} --help`)", err=True)
            sys.exit(2)
        except Terminated:
            sys.exit(STATUS)
        except BrokenPipeError:  # whoever read the output, such as `head`, has enough
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            sys.exit(141)
        except KeyboardInterrupt:
            click.echo("raypipe: interrupted; run the same command again to go on", err=True)
            sys.exit(130)
        except (click.ClickException, click.exceptions.Exit, click.Abort):
            raise
        except Exception:  # a fault of raypipe: Python would print the same, with passwords
            click.echo(redact(traceback.format_exc()), err=True)
            sys.exit(1)


class Number(click.FloatRange):
    """A finite number in a range; `click.FloatRange` lets NaN pass, which is in no range."""

    name = "number"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        number = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{value!r} is not a finite number.", param, ctx)
        return number


NUMBER, POSITIVE = Number(), Number(min=0, min_open=True)


FILE = click.Path(path_type=Path)
shown = partial(click.option, show_default=True)
Decorator = Callable[[Callable], Callable]


def family(given: Iterable[Decorator]) -> Decorator:
    """One decorator for options that belong together; the help shows them in the given order."""
    return lambda command: reduce(lambda made, decorator: decorator(made), reversed(list(given)), command)


@dataclass(frozen=True)
class Asked:
    """What the options that commands share say."""

    path: Path | None = None
    output: Path | None = None
    as_json: bool = False
    overrides: tuple[str, ...] = ()

    def config(self) -> Any:
        """The configuration of the running command; a file of a kind that this command does not serve is refused."""
        from raypipe.config import load_config

        return load_config(self.path, self.overrides, self.output, click.get_current_context().info_name)

    def run(self) -> Any:
        """The run of that configuration."""
        from raypipe.cluster.run import Run

        return Run(self.config())

    def emit(self, value: Any) -> None:
        """`emit`, where JSON is asked for."""
        emit(value, self.as_json)


def options(
    *own: Decorator,
    config: str = "YAML of the search.",
    required: bool = True,
    output: str | None = "Run folder; wins over the configuration.",
    json: str | None = "Print the result as JSON on standard output.",
    overrides: bool = True,
) -> Decorator:
    """--config, options of the command itself, --output, --json and overrides, handed to the command as `Asked`.

    ``config``, ``output`` and ``json`` are their help texts; the command lacks what is None.
    """
    shared = [click.option("--config", "path", type=FILE, required=required, help=config), *own]
    shared += [click.option("--output", type=FILE, help=output)] if output else []
    shared += [click.option("--json", "as_json", is_flag=True, help=json)] if json else []
    shared += [click.argument("overrides", nargs=-1, metavar="[KEY=VALUE]...")] if overrides else []

    def decorate(command: Callable) -> Callable:
        @wraps(command)
        def handed(**given: Any) -> None:
            asked = Asked(**{field.name: given.pop(field.name) for field in fields(Asked) if field.name in given})
            command(asked, **given)

        return family(shared)(handed)

    return decorate


def forbid(names: Sequence[str], why: str) -> None:
    """A `UserError` if one of the options ``names``, which would have no effect, is on the command line of the running
    command, whatever its value; ``{}`` in ``why`` stands for the option."""
    context = click.get_current_context()
    flags = {parameter.name: parameter.opts[0] for parameter in context.command.params}
    for name in names:
        if context.get_parameter_source(name) == ParameterSource.COMMANDLINE:
            raise UserError(why.format(flags[name]))


def emit(value: Any, as_json: bool = True) -> None:
    """Print as JSON, where that is asked for."""
    if as_json:
        click.echo(json.dumps(value, indent=2, allow_nan=False))


def tell(line: str) -> None:
    """Print a line for people, beside the result."""
    click.echo(line, err=True)
