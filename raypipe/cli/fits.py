"""Fits of anybody's mass spectrum: fit, hunt."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from raypipe.cli.base import NUMBER, POSITIVE, Number, emit
from raypipe.cli.fit_text import describe, describe_hunt, failure, refuse, refuse_names, refuse_reading

BACKGROUND = """exp, exppoly:N, poly:N, bernstein:N, power[:N], dijet:N, diphoton:N, flat. To be chosen by F-test:
the order of one family (NAME:auto), the first sufficient one of a list (A,B,C), the best of several families (auto)."""
PAIR = {"nargs": 2, "type": NUMBER, "metavar": "LO HI"}


def spectrum_options(command: Callable) -> Callable:
    """Where the masses or the histogram are and how to read them; common to fit and hunt."""
    for decorate in (
        click.option("--json", "as_json", is_flag=True, help="Print the result as JSON on standard output."),
        click.option(
            "--known",
            "known",
            multiple=True,
            metavar="MASS:WIDTH[=YIELD[+-ERROR]]",
            help="A resonance that belongs to the background; without a yield it is fitted.",
        ),
        click.option("--background", default="exp", show_default=True, help=BACKGROUND),
        click.option(
            "--sqrt-s",
            type=POSITIVE,
            default=13000.0,
            show_default=True,
            help="Collision energy of dijet and diphoton functions, in the unit of the masses.",
        ),
        click.option(
            "--likelihood",
            type=click.Choice(["auto", "poisson", "weighted", "gaussian"]),
            default="auto",
            show_default=True,
            help="Of a histogram; auto looks at contents and errors, weighted takes them as sqrt(sum w^2).",
        ),
        click.option("--bins", type=click.IntRange(1), help="Equal bins for event masses."),
        click.option("--scale", type=POSITIVE, default=1.0, show_default=True, help="Factor on y and errors."),
        click.option("--density", is_flag=True, help="y (of a reference too) is per unit of x: times bin width."),
        click.option("--error", help="Error column of a histogram."),
        click.option("--y", help="Content column of a histogram."),
        click.option("--x", help="Bin-centre column of a histogram."),
        click.option("--weight", help="Column of event weights."),
        click.option("--branch", help="ROOT branch of the masses, or histogram."),
        click.option("--tree", help="ROOT tree; data set or group of an HDF5 file."),
        click.option("--column", help="Column of the masses; for {edges, NAME: ...} files the histogram (A+B adds)."),
        click.option(
            "--masses",
            "path",
            type=click.Path(path_type=Path),
            required=True,
            metavar="FILE",
            help="Masses or histogram: .root .parquet .csv .txt .json .yaml (HEPData) .h5 .npy .npz",
        ),
    ):
        command = decorate(command)
    return command


READING = ("column", "tree", "branch", "weight", "x", "y", "error", "density", "scale")


@click.command()
@spectrum_options
@click.option("--window", **PAIR, required=True, help="Fitted range.")
@click.option("--signal-region", "region", **PAIR, help="Blinded region, counted over the background of its sidebands.")
@click.option(
    "--peak",
    "peak_spec",
    metavar="MASS:WIDTH[:AL:NL:AH:NH]",
    help="Gaussian of standard deviation WIDTH, or Crystal Ball with tails.",
)
@click.option("--float-mass", **PAIR, help="Fit the mass of the peak too, in this range.")
@click.option("--float-width", **PAIR, help="Fit the width of the peak too, in this range.")
@click.option(
    "--toys", type=click.IntRange(0), default=500, show_default=True, help="For the global p-value of a floating peak."
)
@click.option("--seed", type=click.IntRange(0), default=1, show_default=True, help="Of the toys.")
@click.option(
    "--simulation",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Simulated background, for the choice of --background by spurious signal.",
)
@click.option("--simulation-column", help="Column, branch or histogram of the simulation (A+B adds).")
@click.option("--simulation-tree", help="ROOT tree of the simulation.")
@click.option("--simulation-weight", help="Weight column of the simulation.")
@click.option("--unbinned/--binned", default=None, help="For event masses; default: unbinned up to 20,000 events.")
@click.option("--level", type=Number(0.5, 0.9999), default=0.95, show_default=True, help="Of the CLs limit.")
def fit(
    path: Path,
    region: tuple[float, float] | None,
    window: tuple[float, float],
    background: str,
    peak_spec: str | None,
    float_mass: tuple[float, float] | None,
    float_width: tuple[float, float] | None,
    toys: int,
    seed: int,
    simulation: Path | None,
    simulation_column: str | None,
    simulation_tree: str | None,
    simulation_weight: str | None,
    unbinned: bool | None,
    level: float,
    bins: int | None,
    likelihood: str,
    sqrt_s: float,
    known: tuple[str, ...],
    as_json: bool,
    **reading: Any,
) -> None:
    """Fit a peak, or count a signal region, over a smooth background of any mass spectrum.

    Prints the signal yield s (unconstrained: it may be negative) and its error, the background b (in the signal region
    if one is given, else in the window), q0 and Z = sqrt(q0) for s >= 0, the CLs limit, chi2/ndf and the fit's status.
    With --float-mass or --float-width these are fitted with the yield; q0 and Z then are the local ones at the best
    mass, and a global p-value from toys stands beside them. Where there are several, the line 'quote' says which to
    quote. Leaves with status 1 if the fit did not converge.

    \b
    Example:
      raypipe fit --masses events.root --tree Events --branch m_yy --window 105 160 --background exp --peak 125:1.5
      raypipe fit --masses m.npy --window 60 120 --background auto --peak 91:2.5 --float-mass 85 97 --float-width 1 5
      raypipe fit --masses h.csv --window 70 180 --background poly:2 --peak 125:2 --known 91.2:2.5
      raypipe fit --masses m.npy --window 5 16 --signal-region 9 10.6 --background poly:5 --json
    """
    from raypipe.events.masses import Masses, load_masses
    from raypipe.events.spectra import Spectrum
    from raypipe.stats.floating import Ranges
    from raypipe.stats.peakdata import known_peak
    from raypipe.stats.peakfit import fit_peak
    from raypipe.stats.peaks import peak

    ranges = Ranges(float_mass, float_width, toys, seed)
    refuse_names(path)
    data = load_masses(path, **{name: reading[name] for name in READING})
    simulated = _simulated(
        "simulation", simulation, simulation_column, simulation_tree, simulation_weight, reading["density"]
    )
    refuse_reading(path, isinstance(data, Masses), isinstance(simulated, Spectrum), background)
    if not ranges.free:
        refuse("on a fixed peak, toys are for --float-mass and --float-width", "toys", "seed")
    if not toys:
        refuse("without toys", "seed")
    if peak_spec is None:
        refuse("without --peak or --signal-region", *(() if region else ("level",)))
        refuse("on a counted region, whose sidebands are binned", *(("unbinned",) if region and unbinned else ()))
    result = fit_peak(
        data,
        window,
        background,
        peak(peak_spec) if peak_spec else None,
        region,
        bins,
        unbinned,
        likelihood,
        [known_peak(spec) for spec in known],
        sqrt_s=sqrt_s,
        level=level,
        ranges=ranges,
        simulation=simulated,
    )
    if as_json:
        emit(result.row)
    else:
        click.echo("\n".join(describe(result.row)))
    if not result.row["valid"]:
        click.echo("raypipe: the fit did not converge: do not use these numbers; try another background", err=True)
        sys.exit(1)


def _simulated(
    option: str, path: Path | None, column: str | None, tree: str | None, weight: str | None, density: bool
) -> Any:
    """The simulation of --``option``, or None; its column, tree or weight without a file are refused."""
    from raypipe.events.masses import load_masses

    if path is not None:
        return load_masses(path, column, tree=tree, weight=weight, density=density)
    refuse(f"without --{option}", *(f"{option}_{name}" for name in ("column", "tree", "weight")))
    return None


@click.command()
@spectrum_options
@click.option("--window", **PAIR, required=True, help="Fitted range.")
@click.option(
    "--widths",
    default="",
    metavar="W[,W...]",
    help="Standard deviations of the peak; 2% is relative to its mass; default: from the window.",
)
@click.option("--scan", "scan_range", **PAIR, help="Masses of the peak; default: the window less one width.")
@click.option("--points", type=click.IntRange(1), help="Scanned masses; default: half a width apart.")
@click.option("--tails", default="", metavar="AL:NL:AH:NH", help="Crystal Ball tails of the peak.")
@click.option("--signal-region", "region", **PAIR, help="Count this blinded region over its sidebands instead.")
@click.option("--mask", "masks", multiple=True, **PAIR, help="Leave out a range, such as a known resonance.")
@click.option(
    "--reference",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Simulated background instead of a family: shape and errors, free normalisation.",
)
@click.option("--reference-column", help="Column, branch or histogram of the reference (A+B adds).")
@click.option("--reference-tree", help="ROOT tree of the reference.")
@click.option("--reference-weight", help="Weight column of the reference.")
@click.option(
    "--reference-order",
    type=click.IntRange(0),
    default=0,
    show_default=True,
    help="Degree of a polynomial in the exponent that may correct the reference.",
)
@click.option("--toys", type=click.IntRange(0), default=1000, show_default=True, help="For the global p-value.")
@click.option("--seed", type=click.IntRange(0), default=1, show_default=True, help="Of the toys.")
@click.option("--level", type=Number(0.5, 0.9999), default=0.95, show_default=True, help="Of the CLs limit.")
@click.option("--output", type=click.Path(path_type=Path), help="Folder for hunt.json and hunt.png.")
def hunt(
    path: Path,
    window: tuple[float, float],
    widths: str,
    background: str,
    scan_range: tuple[float, float] | None,
    points: int | None,
    tails: str,
    region: tuple[float, float] | None,
    masks: tuple[tuple[float, float], ...],
    reference: Path | None,
    reference_column: str | None,
    reference_tree: str | None,
    reference_weight: str | None,
    reference_order: int,
    toys: int,
    seed: int,
    level: float,
    output: Path | None,
    bins: int | None,
    likelihood: str,
    sqrt_s: float,
    known: tuple[str, ...],
    as_json: bool,
    **reading: Any,
) -> None:
    """Scan a peak over any mass spectrum: local and global significance.

    The global p-value counts background-only toys whose largest excess anywhere in the scan (masses and widths)
    reaches the observed one; beside it stands the asymptotic estimate from upcrossings. The line 'quote' says which of
    the numbers to quote. Where no toy reaches the excess, the global p-value is an upper bound and has no Z. Leaves
    with status 1 if a fit did not converge, and says at which mass.

    \b
    Example:
      raypipe hunt --masses spectrum.csv --window 100 160 --background poly:4 --widths 1.5,2.5 --toys 2000 --output out
      raypipe hunt --masses m.npy --window 5 16 --signal-region 9 10.6 --background poly:5 --json
    """
    from raypipe.errors import UserError
    from raypipe.events.masses import Masses, load_masses
    from raypipe.events.spectra import Spectrum
    from raypipe.files import check_writable, write_json
    from raypipe.stats import hunt as hunting
    from raypipe.stats.peakdata import known_peak
    from raypipe.stats.widths import width

    if output is not None:
        check_writable(output)
    refuse_names(path)
    data = load_masses(path, **{name: reading[name] for name in READING})
    simulated = _simulated(
        "reference", reference, reference_column, reference_tree, reference_weight, reading["density"]
    )
    refuse_reading(
        path, isinstance(data, Masses), isinstance(simulated, Spectrum), None if reference is not None else background
    )
    if reference is None:
        refuse("without --reference", "reference_order")
    if region is not None:
        refuse("with --signal-region, which is counted", "widths", "scan_range", "points", "tails")
    if not toys:
        refuse("without toys", "seed")
    try:
        shape = [float(part) for part in tails.split(":")] if tails else []
    except ValueError:
        shape = [0.0]
    if len(shape) not in (0, 4):
        raise UserError(f"--tails {tails!r}: write A_LOW:N_LOW:A_HIGH:N_HIGH")
    peaks = [known_peak(spec) for spec in known]
    result = hunting.hunt(
        data,
        window,
        background,
        [width(part) for part in widths.split(",") if part.strip()],
        scan_range,
        points,
        shape,
        toys,
        seed,
        bins,
        likelihood,
        region,
        masks,
        peaks,
        simulated,
        reference_order,
        sqrt_s,
        level,
    )
    if output is not None:
        from raypipe.report.hunt import write_figure

        write_json(output / "hunt.json", result.row)
        write_figure(result, output / "hunt.png", path.name)
    if as_json:
        emit(result.row)
    else:
        click.echo("\n".join(describe_hunt(result.row)))
    if not result.row["valid"]:
        click.echo(failure(result.row, reference is not None, isinstance(data, Masses)), err=True)
        sys.exit(1)
