"""The command line: thin, every command a few lines over the library; one module a family of commands."""

import os

import click

from raypipe import __version__
from raypipe.cli import fits, samples, stages, tools
from raypipe.cli.base import Commands
from raypipe.cli.classify import classify
from raypipe.cli.export import export
from raypipe.cli.new import new
from raypipe.cli.stages import calibrate
from raypipe.kinds import load_plugins


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="raypipe")
def main() -> None:
    """Model-agnostic searches for new physics, from a laptop to a Ray cluster.

    Every stage skips what is already done and continues what was interrupted. Any configuration value can be
    overridden by KEY=VALUE with a dotted key.

    \b
    Example, the whole search on this machine:
      raypipe scan --config configs/contrastive/laptop.yaml
    """
    load_plugins()
    # One thread a library unless the user says otherwise, before the stages import NumPy: two cores must not fight.
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ.setdefault(name, "1")


_SEARCH = (stages.embed, stages.search, stages.plan, stages.scan, stages.status, stages.report, stages.latent)
_ALONE = (
    samples.simulate,
    samples.read,
    fits.fit,
    fits.hunt,
    classify,
    calibrate,
    stages.unblind,
    export,
    tools.doctor,
)
_ALONE += (tools.config, new)
for command in (*_SEARCH, *_ALONE):
    main.add_command(command)
