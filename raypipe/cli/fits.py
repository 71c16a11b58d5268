"""Fits of anybody's mass spectrum: fit, hunt."""

import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import click

from raypipe.cli.base import FILE, NUMBER, POSITIVE, Number, emit, family, forbid, shown, tell
from raypipe.errors import UserError
from raypipe.stats.significance import in_words


def refuse(reason: str, *names: str) -> None:
    """Raise a `UserError` if one of the options ``names`` was given: ``reason`` says why it has no effect."""
    forbid(names, f"{{}} has no effect {reason}: leave it out")


def _head(row: dict[str, Any], more: str = "") -> str:
    low, high = row["window"]
    events = f"{row['n_events']:g} events in {low:g}-{high:g}, {row['bins']} bins{more}"
    return f"status      {row['status']} ({row['likelihood']}, {events})"


def describe(row: dict[str, Any]) -> list[str]:
    """The result of a fit."""
    lines, found, floating, background = [_head(row)], row.get("peak", {}), "global" in row, row["background"]
    if row["s"] is not None:
        lines.append(f"s           {row['s']:.5g} ± {row['s_err']:.3g}  ({row['yield']})")
    lines.append(f"b           {row['b']:.6g} ± {row['b_err']:.3g}")
    if any(f"{name}_err" in found for name in ("mass", "width")):
        errors = {name: found[f"{name}_err"] for name in ("mass", "width")}
        told = [f"{name} {found[name]:.6g}{'' if e is None else f' ± {e:.2g}'}" for name, e in errors.items()]
        lines.append(f"peak        {', '.join(told)}")
    if row["s"] is not None:
        lines.append(f"q0, Z, p0   {row['q0']:.4g}, {row['z']:.3f}, {row['p0']:.3g}{' (local)' if floating else ''}")
    if "spurious" in row:
        lines.append(
            f"spurious    {row['spurious']:.4g} events, in all of these; Z {row['z_without_spurious']:.3f} without"
        )
    if row.get("global"):
        lines.append(f"global      {in_words(row['global'])} (toys)")
    if row.get("upper_limit") is not None:
        expected = f"(expected {row['expected_limit']:.4g})"
        lines.append(f"limit       s < {row['upper_limit']:.4g} at {row['limit_level']:.0%} CLs {expected}")
    if row["chi2"] is not None:
        tail = "" if row["gof_p"] is None else f", p {row['gof_p']:.3g}"
        lines.append(f"chi2/ndf    {row['chi2']:.2f}/{row['ndf']}{tail}")
    parameters = ", ".join(f"{k} = {v:.5g} ± {e:.2g}" for k, (v, e) in background["parameters"].items())
    lines.append(f"background  {background['family']}: {parameters}")
    lines += _choice(background.get("chosen_by"), background.get("compared"))
    for name, (v, e) in row["components"].items():
        lines.append(f"component   {name}: {v:.4g}" + ("" if e < 1e-7 * abs(v) else f" ± {e:.3g}"))
    if count := row.get("signal_region"):
        z = "" if count["z"] is None else f", Z {count['z']:.3f}"
        low, high = count["window"]
        counts = f"{count['n']:g} counted, {count['b']:.5g} ± {count['b_err']:.3g} expected{z}"
        lines.append(f"region      {low:g}-{high:g}: {counts}")
    if floating or count:
        lines.append(_quote(row["quote"]))
    if written := row.get("export"):
        lines.append(f"export      {written['path']}: Z {written['z']:.3f}, s {written['s']:.5g} with pyhf")
    return lines + [f"note        {note}" for note in row["notes"]]


def describe_hunt(row: dict[str, Any]) -> list[str]:
    """The result of a hunt."""
    best, found, estimate = row["best"], row["global"], row["global"]["asymptotic"]
    fitted = f"s {best['s']:.5g} ± {best['s_err']:.3g}, local Z {best['z']:.3f}, p {best['p_local']:.3g}"
    toys = [f"global      {in_words(found['toys'])} ({found['number_of_toys']} toys)"] if found["toys"] else []
    return [
        _head(row, f", {len(row['scan']['mass'])} masses x {len(row['scan']['widths'])} widths"),
        f"background  {row['background']}: chi2/ndf {row['chi2_background_only']:.2f}/{row['ndf']} without a peak",
        f"best        mass {best['mass']:.6g}, width {best['width']}: {fitted}",
        *toys,
        f"global      {in_words(estimate)} (estimate: {estimate['method']} in {found['asymptotic_from']})",
        _quote(row["quote"]),
        *_choice(row["background_chosen_by"], row["backgrounds_compared"]),
        *(f"peak        {p['mass']:.6g} (width {p['width']}): {p['z']:.2f} sigma local" for p in row["peaks"]),
        *(f"note        {note}" for note in row["notes"]),
    ]


def _quote(quote: dict[str, Any] | None) -> str:
    """Which of several significances to quote."""
    if quote is None:
        return "quote       nothing yet: Z is local, a global p-value needs --toys"
    return f"quote       {in_words(quote)} ({quote['which']})"


def _choice(by: str | None, compared: list[dict[str, Any]] | None) -> list[str]:
    """How the background was chosen, in one line."""
    if by is None or compared is None:
        return []
    if by == "spurious signal":
        by += " (largest share of the error)"
        told = [f"{c['family']} {c['largest']:.2f}" for c in compared]
    elif by == "envelope":
        by += " (-2 ln L + parameters, above the lowest)"
        told = [f"{c['family']} {c['above']:.1f}" for c in compared]
    else:
        told = [c["family"] + ("" if c["p"] is None else f" (p {c['p']:.2g})") for c in compared]
    return [f"chosen      by {by}: {', '.join(told)}"]


def failure(row: dict[str, Any], reference: bool, events: bool) -> str:
    """What to say of a hunt that did not converge: where, and what can help."""
    where = "; ".join(note for note in row["notes"] if "converge" in note)
    wider = ["fewer --bins"] if events else []
    remedies = [*wider, "a larger simulation"] if reference else ["another background", *wider]
    return f"raypipe: {where}: do not use these numbers; try {' or '.join(remedies)}, or --mask that range"


BACKGROUND = """exp, exppoly:N, poly:N, bernstein:N, power[:N], dijet:N, diphoton:N, flat. To be chosen by F-test:
the order of one family (NAME:auto), the first sufficient one of a list (A,B,C), the best of several families (auto).
To be profiled together: envelope:A,B,C or envelope:auto."""
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
SPURIOUS = "Events (one sigma) that the background may feign under the peak; default: as --simulation says, or none."
EXPORT = "Also write the model of a binned fit as a pyhf workspace (.json), its background linear about the fit."
ORDER = "Degree of a polynomial in the exponent that may correct the reference."


@click.command()
@spectrum_options
@pair("--signal-region", "region", help="Blinded region, counted over the background of its sidebands.")
@click.option("--peak", "peak_spec", metavar="MASS:WIDTH[:AL:NL:AH:NH]", help=PEAK)
@pair("--float-mass", help="Fit the mass of the peak too, in this range.")
@pair("--float-width", help="Fit the width of the peak too, in this range.")
@toy_options(500, "For the global p-value of a floating peak.")
@simulated_options("simulation", "Simulated background, for the choice of --background by spurious signal.")
@click.option("--spurious-signal", "spurious", type=Number(min=0), help=SPURIOUS)
@click.option("--unbinned/--binned", default=None, help="For event masses; default: unbinned up to 20,000 events.")
@click.option("--export", type=FILE, metavar="FILE", help=EXPORT)
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
    if path.suffix.lower() not in (".root", ".h5", ".hdf5", ".hdf"):  # told before the file is read
        refuse(f"on {path.name}, only ROOT and HDF5 files hold several tables", "tree")
    if given["branch"] is not None:
        refuse("beside --branch", "column")
    if given["column"] is not None:
        refuse("beside --column, which names the masses or the contents", "x", "y")
    data = load_masses(path, **{name: given.pop(name) for name in READING})
    simulated, how = given[other], {name: given.pop(f"{other}_{name}") for name in about}
    if simulated is None:
        refuse(f"without --{other}", *(f"{other}_{name}" for name in about))
    else:
        given[other] = simulated = load_masses(simulated, density=density, **how)
    if isinstance(data, Masses):
        what = f"on the event masses of {path.name}, it is for histograms"
        meant = isinstance(simulated, Spectrum)  # --density, for the other file
        refuse(what, "x", "y", "error", "scale", "likelihood", *([] if meant else ["density"]))
    replaced = other == "reference" and simulated is not None
    if replaced:
        refuse("with --reference, which takes its place", "background")
    if replaced or not ("dijet" in given["background"] or "diphoton" in given["background"]):
        refuse("on this background, dijet and diphoton functions use it", "sqrt_s")
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
@click.option("--output", type=FILE, help="Folder for hunt.json, hunt.svg and its numbers, hunt.csv.")
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
        save_figures({"hunt": figure(result, path.name)}, output)
    told = failure(result.row, given["reference"] is not None, isinstance(data, Masses))
    _finish(result.row, as_json, describe_hunt, told)


def _tails(text: str) -> list[float]:
    """The four tail parameters of a Crystal Ball, or none."""
    found = text.split(":") if text else []
    with suppress(ValueError):
        if len(found) in (0, 4):
            return [float(part) for part in found]
    raise UserError(f"--tails {text!r}: write A_LOW:N_LOW:A_HIGH:N_HIGH")
