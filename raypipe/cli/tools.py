"""Commands about the machine and the configuration: doctor, config."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from raypipe.cli.base import emit


@click.command()
@click.option("--config", "path", type=click.Path(path_type=Path), help="Also check what this search needs.")
@click.option("--json", "as_json", is_flag=True, help="Print the checks as JSON on standard output.")
def doctor(path: Path | None, as_json: bool) -> None:
    """Check packages, Ray, disk, threads, GPU and tracking, and say how to mend what is wrong.

    \b
    Example:
      raypipe doctor --config configs/contrastive/laptop.yaml
    """
    from raypipe.cluster.doctor import examine
    from raypipe.config import load_config

    checks = examine(load_config(path) if path else None)
    for check in checks:
        click.echo(f"{check.status:5s} {check.name}: {check.found}", err=True)
        if check.remedy:
            click.echo(f"      -> {check.remedy}", err=True)
    if as_json:
        emit([vars(check) for check in checks])
    if any(check.status == "wrong" for check in checks):
        sys.exit(1)


@click.command()
def config() -> None:
    """List every configuration key with its default, unit and origin.

    \b
    Example:
      raypipe config | grep flow
    """

    from raypipe.config import Config, Section

    def show(section: type[Section], prefix: str) -> None:
        for name, info in section.model_fields.items():
            kind = info.annotation
            if isinstance(kind, type) and issubclass(kind, Section):
                show(kind, f"{prefix}{name}.")
            else:
                default = "required" if info.is_required() else repr(info.default)
                click.echo(f"{prefix}{name} ({default}): {' '.join((info.description or '').split())}")

    show(Config, "")
