"""Fits of anybody's mass spectrum: fit, hunt."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import click

from raypipe.cli.base import FILE, NUMBER, POSITIVE, Number, emit, family, shown, tell
from raypipe.cli.fit_text import describe, describe_hunt, failure, refuse, refuse_names, refuse_reading
from raypipe.errors import UserError

BACKGROUND = """exp, exppoly:N, poly:N, bernstein:N, power[:N], dijet:N, diphoton:N, flat. To be chosen by F-test:
the order of one family (NAME:auto), the first sufficient one of a list (A,B,C), the best of several families (auto)."""
READING = ("column", "tree", "branch", "weight", "x", "y", "error", "density", "scale")
MASSES = "Masses or histogram: .root .parquet .csv .txt .json .yaml (HEPData) .h5 .npy .npz"
KNOWN = "A resonance that belongs to the background; without a yield it is fitted."
LIKELIHOODS = click.Choice(["auto", "poisson", "weighted", "gaussian"])
LIKELIHOOD = "Of a histogram; auto looks at contents and errors, weighted takes them as sqrt(sum w^2)."
SQRT_S = "Collision energy of dijet and diphoton functions, in the unit of the masses."


def pair(*names: str, **about: Any) -> Callable:
    """An option of two numbers."""
    return click.option(*names, nargs=2, type=NUMBER, metavar="LO HI", **about)


spectrum_options = family(
    [
        click.option("--masses", "path", type=FILE, required=True, metavar="FILE", help=MASSES),
        click.option("--column", help="Column of the masses; for {edges, NAME: ...} files the histogram (A+B adds)."),
        click.option("--tree", help="ROOT tree; data set or group of an HDF5 file."),
        click.option("--branch", help="ROOT branch of the masses, or histogram."),
        click.option("--weight", help="Column of event weights."),
        click.option("--x", help="Bin-centre column of a histogram."),
        click.option("--y", help="Content column of a histogram."),
        click.option("--error", help="Error column of a histogram."),
        click.option("--density", is_flag=True, help="y (of a reference too) is per unit of x: times bin width."),
        shown("--scale", type=POSITIVE, default=1.0, help="Factor on y and errors."),
        click.option("--bins", type=click.IntRange(1), help="Equal bins for event masses."),
        shown("--likelihood", type=LIKELIHOODS, default="auto", help=LIKELIHOOD),
        shown("--sqrt-s", type=POSITIVE, default=13000.0, help=SQRT_S),
        shown("--background", default="exp", help=BACKGROUND),
        click.option("--known", multiple=True, metavar="MASS:WIDTH[=YIELD[+-ERROR]]", help=KNOWN),
        click.option("--json", "as_json", is_flag=True, help="Print the result as JSON on standard output."),
        pair("--window", required=True, help="Fitted range."),
    ]
)
"""Where the masses or the histogram are, how to read and how to fit them; common to fit and hunt."""


def simulated_options(name: str, what: str) -> Callable:
    """A second file, and its column, tree and weight."""
    column = click.option(f"--{name}-column", help=f"Column, branch or histogram of the {name} (A+B adds).")
    tree = click.option(f"--{name}-tree", help=f"ROOT tree of the {name}.")
    weight = click.option(f"--{name}-weight", help=f"Weight column of the {name}.")
    return family([click.option(f"--{name}", type=FILE, metavar="FILE", help=what), column, tree, weight])


def toy_options(number: int, what: str) -> Callable:
    toys = shown("--toys", type=click.IntRange(0), default=number, help=what)
    return family([toys, shown("--seed", type=click.IntRange(0), default=1, help="Of the toys.")])


level_option = shown("--level", type=Number(0.5, 0.9999), default=0.95, help="Of the CLs limit.")
PEAK = "Gaussian of standard deviation WIDTH, or Crystal Ball with tails."
WIDTHS = "Standard deviations of the peak; 2% is relative to its mass; default: from the window."
ORDER = "Degree of a polynomial in the exponent that may correct the reference."


@click.command()
@spectrum_options
@pair("--signal-region", "region", help="Blinded region, counted over the background of its sidebands.")
@click.option("--peak", "peak_spec", metavar="MASS:WIDTH[:AL:NL:AH:NH]", help=PEAK)
@pair("--float-mass", help="Fit the mass of the peak too, in this range.")
@pair("--float-width", help="Fit the width of the peak too, in this range.")
@toy_options(500, "For the global p-value of a floating peak.")
@simulated_options("simulation", "Simulated background, for the choice of --background by spurious signal.")
@click.option("--unbinned/--binned", default=None, help="For event masses; default: unbinned up to 20,000 events.")
@level_option
def fit(path: Path, peak_spec: str | None, toys: int, seed: int, as_json: bool, **given: Any) -> None:
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
    from raypipe.stats.floating import Ranges
    from raypipe.stats.peakfit import PeakFit, fit_peak
    from raypipe.stats.peaks import peak

    ranges = Ranges(given.pop("float_mass"), given.pop("float_width"), toys, seed)
    data = _read(path, given, "simulation")
    if not ranges.free:
        refuse("on a fixed peak, toys are for --float-mass and --float-width", "toys", "seed")
    if not toys:
        refuse("without toys", "seed")
    if peak_spec is None:
        if not given["region"]:
            refuse("without --peak or --signal-region", "level")
        elif given["unbinned"]:
            refuse("on a counted region, whose sidebands are binned", "unbinned")
    row = fit_peak(data, PeakFit(peak=peak(peak_spec) if peak_spec else None, ranges=ranges, **given))
    tell = "the fit did not converge: do not use these numbers; try another background"
    _finish(row, as_json, describe, f"raypipe: {tell}")


def _read(path: Path, given: dict[str, Any], other: str) -> Any:
    """The data of ``given``, whose options of reading are replaced by the simulation of ``--other`` (or None) and the
    known peaks; those without effect are refused."""
    from raypipe.events.masses import Masses, load_masses
    from raypipe.events.spectra import Spectrum
    from raypipe.stats.peakdata import known_peak

    density, about = given["density"], ("column", "tree", "weight")
    refuse_names(path)
    data = load_masses(path, **{name: given.pop(name) for name in READING})
    simulated, how = given[other], {name: given.pop(f"{other}_{name}") for name in about}
    if simulated is None:
        refuse(f"without --{other}", *(f"{other}_{name}" for name in about))
    else:
        given[other] = simulated = load_masses(simulated, density=density, **how)
    replaced = other == "reference" and simulated is not None
    background = None if replaced else given["background"]
    refuse_reading(path, isinstance(data, Masses), isinstance(simulated, Spectrum), background)
    given["fixed"] = [known_peak(spec) for spec in given.pop("known")]
    return data


def _finish(row: dict[str, Any], as_json: bool, text: Callable, failed: str) -> None:
    """Print the row; leave with status 1 if it is not valid."""
    emit(row) if as_json else click.echo("\n".join(text(row)))
    if not row["valid"]:
        tell(failed)
        sys.exit(1)


@click.command()
@spectrum_options
@click.option("--widths", default="", metavar="W[,W...]", help=WIDTHS)
@pair("--scan", "scan_range", help="Masses of the peak; default: the window less one width.")
@click.option("--points", type=click.IntRange(1), help="Scanned masses; default: half a width apart.")
@click.option("--tails", default="", metavar="AL:NL:AH:NH", help="Crystal Ball tails of the peak.")
@pair("--signal-region", "region", help="Count this blinded region over its sidebands instead.")
@pair("--mask", "masks", multiple=True, help="Leave out a range, such as a known resonance.")
@simulated_options("reference", "Simulated background instead of a family: shape and errors, free normalisation.")
@shown("--reference-order", type=click.IntRange(0), default=0, help=ORDER)
@toy_options(1000, "For the global p-value.")
@level_option
@click.option("--output", type=FILE, help="Folder for hunt.json and hunt.png.")
def hunt(path: Path, widths: str, tails: str, output: Path | None, as_json: bool, **given: Any) -> None:
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
    from raypipe.events.masses import Masses
    from raypipe.files import check_writable, write_json
    from raypipe.stats import hunt as hunting
    from raypipe.stats.widths import width

    if output is not None:
        check_writable(output)
    data = _read(path, given, "reference")
    if given["reference"] is None:
        refuse("without --reference", "reference_order")
    if given["region"] is not None:
        refuse("with --signal-region, which is counted", "widths", "scan_range", "points", "tails")
    if not given["toys"]:
        refuse("without toys", "seed")
    given["widths"] = [width(part) for part in widths.split(",") if part.strip()]
    result = hunting.hunt(data, hunting.Hunt(tails=_tails(tails), **given))
    if output is not None:
        from raypipe.report.hunt import figure
        from raypipe.report.style import save_figures

        write_json(output / "hunt.json", result.row)
        save_figures({"hunt": figure(result, path.name)}, output, dpi=130)
    told = failure(result.row, given["reference"] is not None, isinstance(data, Masses))
    _finish(result.row, as_json, describe_hunt, told)


def _tails(text: str) -> list[float]:
    """The four tail parameters of a Crystal Ball, or none."""
    found = text.split(":") if text else []
    with suppress(ValueError):
        if len(found) in (0, 4):
            return [float(part) for part in found]
    raise UserError(f"--tails {text!r}: write A_LOW:N_LOW:A_HIGH:N_HIGH")
