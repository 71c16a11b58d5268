"""The command line: thin, every command a few lines over `raypipe.cluster.pipeline`."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from raypipe import __version__
from raypipe.config import Config, Section, load_config
from raypipe.errors import UserError


class _Commands(click.Group):
    """Prints a `UserError` as one line and leaves with status 2."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except UserError as error:
            click.echo(f"raypipe: error: {error}", err=True)
            sys.exit(2)
        except KeyboardInterrupt:
            click.echo("raypipe: interrupted; run the same command again to go on", err=True)
            sys.exit(130)


def _options(command: Callable) -> Callable:
    """--config, overrides, --output and --json, common to the stages."""
    for decorate in (
        click.argument("overrides", nargs=-1, metavar="[KEY=VALUE]..."),
        click.option("--json", "as_json", is_flag=True, help="Print the result as JSON on standard output."),
        click.option("--output", type=click.Path(path_type=Path), help="Run folder; wins over the configuration."),
        click.option("--config", "path", type=click.Path(path_type=Path), required=True, help="YAML of the search."),
    ):
        command = decorate(command)
    return command


def _load(path: Path, output: Path | None, overrides: tuple[str, ...]) -> Config:
    extra = [f"output={json.dumps(str(output))}"] if output else []
    return load_config(path, [*overrides, *extra])


def _print(value: Any) -> None:
    click.echo(json.dumps(value, indent=2, allow_nan=False))


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="raypipe")
def main() -> None:
    """Model-agnostic searches for new physics, from a laptop to a Ray cluster.

    Every stage skips what is already done and continues what was interrupted. Any configuration value can be
    overridden by KEY=VALUE with a dotted key.

    \b
    Example, the whole search on this machine:
      raypipe scan --config configs/contrastive/laptop.yaml
    """
    # One thread a library unless the user says otherwise, before the stages import NumPy: two cores must not fight.
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ.setdefault(name, "1")


@main.command()
@_options
def simulate(path: Path, output: Path | None, as_json: bool, overrides: tuple[str, ...]) -> None:
    """Simulate the event samples.

    \b
    Example:
      raypipe simulate --config configs/contrastive/laptop.yaml simulate.samples.yy.events=50000
    """
    from raypipe.cluster.pipeline import Run

    with Run(_load(path, output, overrides)) as run:
        manifest = run.simulate()
        if as_json:
            _print(manifest)
        for name, sample in manifest["samples"].items():
            click.echo(
                f"{name:14s} {sample['n']:8d} events, {sample['yield_per_fb']:10.4g} per fb^-1, "
                f"efficiency {sample['efficiency']:.3f}", err=True,
            )  # fmt: skip


@main.command()
@_options
def embed(path: Path, output: Path | None, as_json: bool, overrides: tuple[str, ...]) -> None:
    """Train the encoder and embed all events (simulates what is missing).

    \b
    Example:
      raypipe embed --config configs/contrastive/laptop.yaml resources.train_workers=2
    """
    from raypipe.cluster.pipeline import Run

    with Run(_load(path, output, overrides)) as run:
        _, record = run.embed()
        where = run.folder / "encoder" / "latents.parquet"
        click.echo(f"{record['rows']} events embedded: {where}", err=True)
        if as_json:
            _print({**record, "path": str(where)})


@main.command()
@_options
@click.option("--signal", default="none", show_default=True, help="Sample to inject, or none.")
@click.option("--strength", type=float, default=0.0, show_default=True, help="Injected S/sqrt(B) in the signal region.")
@click.option("--instance", type=int, default=0, show_default=True, help="Which pseudo-data set.")
def search(
    path: Path, output: Path | None, as_json: bool, overrides: tuple[str, ...], signal: str, strength: float,
    instance: int,
) -> None:  # fmt: skip
    """Run the search once on one pseudo-data set (prepares what is missing).

    \b
    Example:
      raypipe search --config configs/contrastive/laptop.yaml --signal xsh_500_100 --strength 3
    """
    from raypipe.cluster.pipeline import Run
    from raypipe.cluster.scan import trial_inputs
    from raypipe.search.result import NO_SIGNAL, Trial

    config = _load(path, output, overrides)
    if signal != NO_SIGNAL and signal not in config.scan.signals:
        raise UserError(f"--signal {signal!r} is not in scan.signals ({', '.join(config.scan.signals)})")
    if (signal == NO_SIGNAL) != (strength == 0) or strength < 0:
        raise UserError(f"--strength {strength:g} does not fit --signal {signal}: a signal needs a positive strength")
    with Run(config) as run:
        tables, record = run.tables()
        trial = Trial(signal, strength, instance)
        key = trial.key(trial_inputs(config, record))
        rows = run.run_trials({key: trial}, tables).rows([key])
    if rows[0]["status"] != "ok":
        raise UserError(f"the search failed: {rows[0]['error'].strip().splitlines()[-1]}")
    for row in rows:
        click.echo(
            f"cut {row['working_point']:.2%}: {row['n_after']} observed, {row['expected_after']:.1f} ± "
            f"{row['expected_after_error']:.1f} expected, z {row['z_before']:.2f} -> {row['z_after']:.2f}, "
            f"SIC {row['sic']:.2f}", err=True,
        )  # fmt: skip
    if as_json:
        _print([{k: None if v != v else v for k, v in row.items()} for row in rows])


@main.command()
@_options
def scan(path: Path, output: Path | None, as_json: bool, overrides: tuple[str, ...]) -> None:
    """Run the whole grid of searches and write the report (prepares what is missing).

    \b
    Example:
      raypipe scan --config configs/contrastive/laptop.yaml scan.instances=4
    """
    from raypipe.cluster.pipeline import Run, print_summary

    with Run(_load(path, output, overrides)) as run:
        summary = run.scan()
        print_summary(summary, run.folder)
        if as_json:
            _print(summary)
    if summary["failed_trials"]:
        raise UserError(f"{len(summary['failed_trials'])} trials failed; the same command tries them again")


@main.command()
@_options
def report(path: Path, output: Path | None, as_json: bool, overrides: tuple[str, ...]) -> None:
    """Make figures, page and summary again from a finished or unfinished scan.

    \b
    Example:
      raypipe report --config configs/contrastive/laptop.yaml --json
    """
    from raypipe.cluster.pipeline import Run, print_summary

    with Run(_load(path, output, overrides)) as run:
        summary = run.report()
        print_summary(summary, run.folder)
        if as_json:
            _print(summary)


@main.command()
@click.option("--config", "path", type=click.Path(path_type=Path), help="Also check what this search needs.")
@click.option("--json", "as_json", is_flag=True, help="Print the checks as JSON on standard output.")
def doctor(path: Path | None, as_json: bool) -> None:
    """Check packages, Ray, disk, threads, GPU and tracking, and say how to mend what is wrong.

    \b
    Example:
      raypipe doctor --config configs/contrastive/laptop.yaml
    """
    from raypipe.cluster.doctor import examine

    checks = examine(load_config(path) if path else None)
    for check in checks:
        click.echo(f"{check.status:5s} {check.name}: {check.found}", err=True)
        if check.remedy:
            click.echo(f"      -> {check.remedy}", err=True)
    if as_json:
        _print([vars(check) for check in checks])
    if any(check.status == "wrong" for check in checks):
        sys.exit(1)


@main.command()
def config() -> None:
    """List every configuration key with its default, unit and origin.

    \b
    Example:
      raypipe config | grep flow
    """

    def show(section: type[Section], prefix: str) -> None:
        for name, info in section.model_fields.items():
            kind = info.annotation
            if isinstance(kind, type) and issubclass(kind, Section):
                show(kind, f"{prefix}{name}.")
            else:
                default = "required" if info.is_required() else repr(info.default)
                click.echo(f"{prefix}{name} ({default}): {' '.join((info.description or '').split())}")

    show(Config, "")


if __name__ == "__main__":
    main()
