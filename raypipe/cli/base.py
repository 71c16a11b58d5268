"""What the commands share: the group that prints errors as one line, the common options, output."""

import contextlib
import itertools
import json
import math
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, fields
from functools import partial, reduce, wraps
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from raypipe.errors import UserError, redact
from raypipe.kinds import BACKGROUNDS, KINDS, load_plugins

STATUS = 128 + signal.SIGTERM  # Exit status of a terminated command, as shells give it
MESSAGE = "raypipe: terminated; run the same command again to go on"
GRACE = 20.0  # Seconds to clean up in; batch systems send SIGKILL after 30


class Terminated(BaseException):
    """SIGTERM ended the block."""


class Interrupt(KeyboardInterrupt):
    """What SIGTERM raises. A plain `KeyboardInterrupt` in `exec` of a text makes Python end as if by Ctrl-C, whatever
    status is asked for: `dataclass` and PyTorch's import are full of them."""


@contextlib.contextmanager
def terminable() -> Iterator[None]:
    """While the block lasts SIGTERM interrupts it as Ctrl-C does, and is told apart by `Terminated`.

    The interrupt may be lost in compiled code, or leave it as another exception, and the clean-up may hang: a thread
    learns of the signal by itself, and ends the process after `GRACE` seconds.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    watch, calls = _Watch(), itertools.count()

    def interrupt(*_: Any) -> None:
        if next(calls) == 0:  # the clean-up is not to be interrupted
            raise Interrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        with watch:
            yield
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt):
            watch.any.wait(5.0)  # the main thread may be ahead of the one that watches
        if signal.SIGTERM in watch.seen:
            before = signal.SIG_IGN
            watch.tell()
            raise Terminated from None
        raise
    finally:
        signal.signal(signal.SIGTERM, before)


class _Watch(threading.Thread):
    """Reads the numbers of the signals that arrive, whoever handles them."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.seen: set[int] = set()
        self.any = threading.Event()
        self.reading, self.writing = os.pipe()
        self.said: list[str] = []
        self.ended = False
        os.set_blocking(self.writing, False)

    def __enter__(self) -> None:
        self.before = signal.set_wakeup_fd(self.writing)
        self.start()

    def __exit__(self, *error: Any) -> None:
        self.ended = True
        signal.set_wakeup_fd(self.before)
        os.close(self.writing)

    def run(self) -> None:
        while number := os.read(self.reading, 1):
            if number[0] == signal.SIGTERM:
                # What Ray and its threads have to say about parts that the same signal ended helps nobody.
                self.stderr = os.dup(2)
                os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
            if number[0] == signal.SIGINT:
                again = threading.Timer(GRACE, self._again)
                again.daemon = True
                again.start()
            self.seen.add(number[0])
            self.any.set()
            if number[0] == signal.SIGTERM:
                time.sleep(GRACE)
                self._leave()
        os.close(self.reading)

    def _again(self) -> None:
        """Ctrl-C once more, where the first was lost."""
        if not self.ended:
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

    def tell(self) -> None:
        """The one line."""
        if not self.said:
            self.said.append(MESSAGE)
            os.write(self.stderr, f"{MESSAGE}\n".encode())

    def _leave(self) -> None:
        """The end of a process that does not come to one by itself: what it started goes with it."""
        import psutil

        for child in psutil.Process().children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess):
                child.kill()
        self.tell()
        os._exit(STATUS)


class Searching(click.Command):
    """A command that serves all searches; its help names them, those of plugins too."""

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        load_plugins()
        names = [name for name, kind in KINDS.items() if "search" in kind.commands]
        formatter.write_paragraph()
        formatter.write_text(f"Searches (key `search` of a configuration): {', '.join(names)}.")


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


class Commands(Searching, click.Group):
    """Prints a `UserError` or a bad option as one line and leaves with status 2."""

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

    def run(self, config: Any = None) -> Any:
        """The run of that configuration, or of a changed one. What begins is said once its folders are known to be
        writable: what comes next takes seconds to load."""
        from raypipe.store.ledger import check_folders

        config = config or self.config()
        folder, name = check_folders(config), click.get_current_context().info_name
        if name not in ("report", "calibrate") and getattr(config, "simulate", None):  # these may have nothing to do
            tell(f"{name}: {folder}, which keeps all that is finished")
        from raypipe.cluster.run import Run

        return Run(config)

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
