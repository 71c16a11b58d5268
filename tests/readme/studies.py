"""Parts of papers A and B, of fits and hunts, of the simulation, of the GPU, and of the Makefile."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
from gpurecord.table import ladder
from gpurecord.table import markdown as gpu_tables

from raypipe.report.html import plus_minus
from raypipe.report.multilepton import PAPER_LIMITS
from raypipe.simulate.processes import PROCESSES
from tests.conftest import ROOT
from tests.readme.parts import NONE, markdown, minutes, part, record, share, signal, signed, value

LIMITS = (
    ("mlc std_score", "crossing", "MLC, standard deviation"),
    ("mlc mean_loss", "crossing", "MLC, mean loss"),
    ("mlc mean_loss", "cls", "MLC, mean loss, CLs"),
    ("bce std_score", "crossing", "BCE, standard deviation"),
    ("bce std_score", "cls", "BCE, standard deviation, CLs"),
)
"""Rows of the table of limits: loss and statistic, kind of limit, words."""


# Four leptons of CMS.


@part
def cms_4l() -> str:
    """The largest excess, and the yield at 125 GeV, over our simulation and over CMS's."""
    study, rows = record("cms_4l"), []
    for name, what in (("ours", "ours"), ("published", "CMS's own")):
        for row in study[name]:
            higgs, freedom = (
                row["higgs"],
                "free yield" if not row["order"] else f"and a polynomial of degree {row['order']}",
            )
            yields = [plus_minus(higgs["s"], higgs["s_err"]), plus_minus(higgs["mu"], higgs["mu_err"], 2)]
            found = [f"{row['mass']:.1f}", f"{row['z']:.1f}", f"{row['p_global']:.2f}"]
            rows.append([what, freedom, f"{row['chi2']:.0f}/{row['ndf']}", *found, *yields])
    head = ["simulated continuum", "its shape", "χ²/ndf", "largest excess at", "Z there", "global p"]
    return markdown([*head, "events at 125 GeV", "over expected"], rows)


@part
def cms_4l_limits() -> str:
    """Limits over our simulation against those over CMS's."""
    study = record("cms_4l")
    ours, theirs = (np.array([row["limits"] for row in study[name]]) for name in ("ours", "published"))
    ratio = ours[0, :, 1] / theirs[0, :, 1] - 1
    spread = np.ptp(ours[:, :, 1], axis=0) / ours[0, :, 1]
    return (
        f"From {ours[0, 0, 0]:.0f} to {ours[0, -1, 0]:.0f} GeV the limits over our continuum lie between "
        f"{100 * ratio.min():+.0f} and {100 * ratio.max():+.0f} % of those over CMS's. The freedom of the shape moves "
        f"them by {share(spread.max())} at the most"
    )


# Paper A.


def _of(rows: list[dict[str, Any]], method: str, name: str, strength: float, quantity: str) -> str:
    keys = ("method", "signal", "strength")
    mine = [row for row in rows if tuple(row[k] for k in keys) == (method, name, strength)]
    return value(mine[0][quantity]) if mine else NONE


@part
def haxad_results() -> str:
    """Significance of the fitted peak and SIC, beside the paper's."""
    return _haxad_table("haxad")


@part
def haxad_first_look() -> str:
    """The same of the first look."""
    return _haxad_table("haxad_first_look")


def _haxad_table(name: str) -> str:
    results = record(name)["results"]
    head = ["injected", "S/√B", "Z before", "Z after", "SIC", "true background", "with labels", "best cut", "paper A"]
    rows = []
    for row in (r for r in results if r["method"] == "cathode" and r["strength"]):
        name, strength = row["signal"], row["strength"]
        others = [_of(results, method, name, strength, "sic") for method in ("idealised", "supervised", "cut")]
        mine = [value(row[k]) for k in ("fit_z_before", "fit_z_after", "sic")]
        rows.append([signal(name), f"{strength:g}", *mine, *others, f"{row['paper_sic']:g}"])
    return markdown(head, rows)


@part
def haxad_null() -> str:
    """The runs without a signal, in a sentence."""
    return _haxad_nulls("haxad")


@part
def haxad_first_look_null() -> str:
    """The same of the first look."""
    return _haxad_nulls("haxad_first_look")


@part
def haxad_earlier_null() -> str:
    """The same of the first look before it, on seed 20291."""
    return _haxad_nulls("haxad_first_look_20291")


@part
def haxad_both_nulls() -> str:
    """Mean and width of the pull over the sets of both first looks."""
    nulls = [record(name)["null"][0] for name in ("haxad_first_look", "haxad_first_look_20291")]
    sets, mean = (np.array([null[name] for null in nulls]) for name in ("instances", "pull_mean"))
    squares = np.average([null["pull_width"] ** 2 + null["pull_mean"] ** 2 for null in nulls], weights=sets)
    both = np.average(mean, weights=sets)
    width = np.sqrt(squares - both**2)
    return f"the pull of {sets.sum()} sets is {plus_minus(both, width / np.sqrt(sets.sum()))} and {width:.2f} wide"


def _haxad_nulls(name: str) -> str:
    null = record(name)["null"][0]
    return (
        f"in {null['instances']} runs Z is zero in {share(null['share_zero'])}, above 1 in "
        f"{share(null['share_above_1'])} ({share(null['expected_shares'][1])} expected) and above 2 in "
        f"{share(null['share_above_2'])} ({share(null['expected_shares'][2])} expected). Intervals of 68 % cover "
        f"{share(null['coverage_68'])}. The pull is "
        f"{plus_minus(null['pull_mean'], null['pull_mean_error'])} and {null['pull_width']:.2f} wide."
    )


@part
def haxad_linearity() -> str:
    """Fitted against injected yield."""
    return _line("haxad")


@part
def haxad_first_look_linearity() -> str:
    """The same of the first look."""
    return _line("haxad_first_look")


def _line(name: str) -> str:
    line = record(name)["linearity"][0]
    return (
        f"slope {plus_minus(line['slope'], line['slope_error'])}, offset "
        f"{plus_minus(line['offset'], line['offset_error'], 0)} events (χ² {line['chi2']:.1f} for {line['ndf']})"
    )


@part
def haxad_time() -> str:
    """Wall-clock time of the searches."""
    return minutes(record("haxad")["stage_seconds"]["scan"])


# Paper B.


def _limit(test: str, kind: str, name: str, unit: str) -> str:
    found = record("multilepton")["tests"][test]["limits"][name][kind][unit]
    digits = 2 if unit == "fb" else 0
    text = "{value:.{d}f} ({low:.{d}f}–{high:.{d}f})".format(d=digits, **found)
    return f"≤ {text}" if found["bound"] else text


def _limits(unit: str) -> list[list[str]]:
    names = record("multilepton")["acceptance"]
    return [[words, *(_limit(test, kind, name, unit) for name in names)] for test, kind, words in LIMITS]


@part
def multilepton_limits() -> str:
    """95 % limits in fb beside the paper's."""
    masses = [int(name.split("_")[1]) for name in record("multilepton")["acceptance"]]
    paper = [[f"**paper B, {loss.upper()}**", *(PAPER_LIMITS[loss][m] for m in masses)] for loss in ("mlc", "bce")]
    return markdown(["limit in fb", *(f"A({m})" for m in masses)], [*_limits("fb"), *paper])


@part
def multilepton_events() -> str:
    """The same limits in selected events, and the acceptance between the two."""
    accepted = record("multilepton")["acceptance"]
    head = ["limit in events", *(f"A({name.split('_')[1]})" for name in accepted)]
    return markdown(head, [*_limits("events"), ["acceptance", *(f"{a:.3f}" for a in accepted.values())]])


@part
def multilepton_calibration() -> str:
    """Type-I errors of the statistics and of their combination."""
    book = record("multilepton")
    checks = [test["calibration"] for test in book["tests"].values()]
    shares, both = [c["type_i"] for c in checks], book["combined"]["calibration"]
    finite = (checks[0]["error"] ** 2 - checks[0]["binomial_error"] ** 2) ** 0.5
    return (
        f"{checks[0]['data_sets']} further data sets without a signal have p ≤ 5 % in {share(min(shares), 1)} to "
        f"{share(max(shares), 1)} of cases for the {len(checks)} statistics (± {share(checks[0]['error'], 1)}, "
        f"of which {share(finite, 1)} come from the finite bootstraps), and in {share(both['type_i'])} "
        f"(± {share(both['error'])}) for all of them combined"
    )


@part
def multilepton_size() -> str:
    """Events expected, bootstraps and comparisons."""
    book = record("multilepton")
    return f"{book['expected']:.0f} expected events, {book['bootstraps']} bootstraps, {book['finished']} comparisons"


@part
def multilepton_time() -> str:
    """Wall-clock time."""
    return minutes(sum(record("multilepton")["stage_seconds"].values()))


# The LHC Olympics arrays.


def _injected(row: dict[str, Any]) -> str:
    return f"{row['signals']:,}" if row["signals"] else "supervised"


@part
def lhco() -> str:
    """SIC of `raypipe classify` beside scikit-learn, by injected events."""
    rows = []
    for row in record("lhco")["rows"]:
        found = [plus_minus(v, e) for v, e in zip(row["sic"]["value"], row["sic"]["error"], strict=True)]
        rows.append([_injected(row), row["method"], *found, f"{row['cpu_seconds']:.0f}"])
    cuts = [f"SIC at {share(point, 1)}" for point in record("lhco")["points"]]
    return markdown(["signal events", "method", *cuts, "largest", "CPU s"], rows)


@part
def lhco_ratio() -> str:
    """Ours over the better of scikit-learn's at the second point."""
    study, found = record("lhco"), []
    for signals in dict.fromkeys(row["signals"] for row in study["rows"]):
        theirs = [r for r in study["rows"] if r["signals"] == signals and "HGB" in r["method"]]
        best = max(theirs, key=lambda row: row["sic"]["value"][1])
        ratio = plus_minus(best["ours_over_it"]["value"][1], best["ours_over_it"]["error"][1], 2)
        found.append(f"{ratio} ({_injected(best)})")
    return ", ".join(found)


# Whole searches against a script.


def _against(row: dict[str, Any], point: str) -> str:
    """Our SIC, theirs, and the difference with the errors of the events and of the cases."""
    of = row["detail"]["sic"][point]["all"]
    ours, theirs, apart = (of[name] for name in ("ours", "theirs", "difference"))
    error = float(np.hypot(apart["error_events"], apart["error_cases"]))
    return f"{ours['mean']:.1f}, {theirs['mean']:.1f}: {signed(apart['mean'], error)}"


@part
def peers() -> str:
    """CPU seconds and SIC of whole searches, ours and a script's."""
    rows = []
    for row in record("peers")["benches"]["peers"]["rows"]:
        if row["meaning"] == "speed-up":
            cells = [f"{row['ours']:.1f}", f"{row['reference']:.1f}", f"{row['ratio']:.2f}"]
            rows.append([row["name"].removeprefix("peers: "), *cells, *(_against(row, p) for p in ("0.01", "0.005"))])
    head = ["", "raypipe, CPU s", "script, CPU s", "theirs over ours"]
    return markdown([*head, "SIC at 1 %: ours, theirs: difference", "at 0.5 %"], rows)


@part
def peers_flows() -> str:
    """What a single flow of zuko reaches, and at what cost."""
    told = []
    for row in record("peers")["benches"]["peers"]["rows"]:
        if "nll_theirs_above_ours" in row["detail"]:
            above = row["detail"]["nll_theirs_above_ours"]
            name = row["name"].rpartition(" ")[2]
            told.append(
                f"the {name} stays {above['mean']:.3f} nats above ours at {row['ratio']:.1f} times our CPU time"
            )
    return ", ".join(told)


# Fits and hunts.


@part
def stats_pulls() -> str:
    """Pulls of the fitted yield, by background."""
    rows = []
    for r in record("stats")["pulls"]["rows"]:
        fitted = [f"`{r['background']}`", f"{r['events']:,}", str(r["bins"] or "unbinned"), str(r["toys"])]
        rows.append([*fitted, signed(r["mean"], r["width"] * r["toys"] ** -0.5, 2), f"{r['width']:.2f}"])
    return markdown(["background", "events", "bins", "toys", "mean pull", "width"], rows)


@part
def stats_local() -> str:
    """Uniformity of the local p-value at several masses."""
    rows = record("stats")["local_p"]["rows"]
    least = min(row["ks_p"] for row in rows)
    return f"KS p of {least:.2f} or more at {len(rows)} masses, {rows[0]['toys']} toys each"


@part
def stats_global() -> str:
    """Uniformity of the global p-value."""
    row = record("stats")["global_p"]["rows"]
    return f"KS p of {row['ks_p']:.2f}, {row['sets']} sets of {row['toys']} toys"


@part
def stats_speed() -> str:
    """Toys of a hunt against iminuit."""
    row = record("stats")["bench"]["rows"][0]
    detail = row["detail"]
    return (
        f"{detail['toys']} toys at {detail['masses']} masses cost {row['ours']:.1f} s, {row['ratio']:.0f} "
        f"({row['ratio_min']:.0f}–{row['ratio_max']:.0f}) times less than iminuit one by one"
    )


@part
def stats_cms() -> str:
    """CMS's published four-lepton histogram."""
    row = next(r for r in record("stats")["real_data"]["rows"] if "fit poly:1" in r["data"])
    return f"s = {plus_minus(row['s'], row['s_err'], 1)}, Z = {row['z']:.1f}"


# The simulation.


@part
def simulated_samples() -> str:
    """Every recorded sample: what it is, how much of it is selected, and at what cost."""
    rows = []
    for name, row in record("simulate")["samples"].items():
        selected = plus_minus(row["efficiency"], row["efficiency_error"], 3)
        numbers = f"{row['yield_per_fb']:.3g}", f"{row['selected_per_cpu_second']:.0f}"
        rows.append([signal(name), PROCESSES[name].title, selected, *numbers])
    return markdown(["sample", "process", "selected share", "events per fb⁻¹", "selected events per CPU second"], rows)


@part
def simulated_sizes() -> str:
    """Memory of the generator, and size of an event on disk."""
    rows = record("simulate")["samples"].values()
    sizes = [row["bytes_per_event"] for row in rows]
    return (
        f"{max(row['max_rss_mib'] for row in rows):.0f} MiB a process at most, {min(sizes):.0f} to {max(sizes):.0f} "
        "bytes a selected event"
    )


# The card, and the Makefile.


@part
def gpu() -> str:
    """What was measured on a GPU."""
    return gpu_tables(record("gpu"))


@part
def gpu_ladder() -> str:
    """SIC in the latent spaces of encoders that differ in one thing each."""
    return ladder(record("gpu"))


@part
def gpu_measured() -> str:
    """On what, in a sentence."""
    machine = record("gpu")["steps"]["encoder speed"]["machine"]
    return f"GPU numbers are of one {machine['card']}, without Ray (tests/records/gpu.json)."


def targets() -> dict[str, str]:
    """Targets of the Makefile and what they say of themselves."""
    return dict(re.findall(r"^([a-z-]+):.*?## (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE))


@part
def two_commands() -> str:
    """The two commands with the Makefile's words."""
    lines = [f"make {name}    # {targets()[name]}" for name in ("demo", "test")]
    return "\n".join(["```", *lines, "```"])


@part
def make_targets() -> str:
    """Every target of the Makefile."""
    return markdown(["command", "what it does"], [[f"`make {name}`", said] for name, said in targets().items()])
