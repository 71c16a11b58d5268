"""Parts of paper C: the study of the contrastive search, its figures, and the encoders on a GPU."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from raypipe.config.load import load_config
from raypipe.report.html import plus_minus
from tests.conftest import ROOT
from tests.readme.parts import NONE, markdown, minutes, part, record, share, signal, signed, value, widening
from tests.search.record_contrastive import PAPER

SHOWN = ("wn_150", "xsh_500_100")
WAYS = {
    ("id", "cathode"): "the search",
    ("id", "no_higgs"): "its background without the simulated Higgs",
    ("id", "idealised"): "true background sample instead of the flow",
    ("id", "supervised"): "trees that know the labels, same latent space",
    ("id", "cut"): "best cut on one of the nine features",
    ("ep", "cathode"): "encoder that never saw the signal's family (EP)",
    ("background", "cathode"): "encoder of the SM alone",
    ("raw", "cathode"): "nine raw features, no encoder",
}
"""Rows of the table of comparisons: (embedding, method) and its words."""
ENCODERS = {"id": "ID", "ip": "IP", "ep": "EP", "background": "SM alone"}


def _study() -> dict[str, Any]:
    return record("contrastive")


def points(rows: list[dict[str, Any]]) -> list[float]:
    """Working points, loosest first."""
    return sorted({row["working_point"] for row in rows}, reverse=True)


def percent(point: float) -> str:
    """A working point in words."""
    return f"{100 * point:g} %"


def found(rows: list[dict[str, Any]], **wanted: Any) -> list[dict[str, Any]]:
    """Rows of these values, the loosest cut first."""
    kept = [row for row in rows if all(row[k] == v for k, v in wanted.items())]
    return sorted(kept, key=lambda row: -row["working_point"])


def _both(rows: list[dict[str, Any]], quantity: str = "sic", **wanted: Any) -> str:
    """A quantity at all cuts, with slashes."""
    return " / ".join(value(row[quantity]) for row in found(rows, **wanted)) or NONE


def _z(row: dict[str, Any], quantity: str, study: dict[str, Any] | None = None) -> str:
    return value(row[quantity], 1, widening(row["instances"], study or _study()))


@part
def first_table() -> str:
    """What the first look injected, and what an analyst would quote before and after the cut."""
    return _injected(record("contrastive_first_look"))


@part
def first_look_time() -> str:
    """Wall-clock time of the first look, from simulation to the last trial."""
    return minutes(sum(record("contrastive_first_look")["stage_seconds"].values()))


@part
def first_look_luminosity() -> str:
    """Luminosity of its pseudo-data."""
    config = load_config(ROOT / "configs" / "contrastive" / "first_look.yaml")
    return f"{config.pseudodata.luminosity:g} fb⁻¹"


@part
def demo_table() -> str:
    """The same of `make demo`."""
    return _injected(record("demo"))


@part
def demo_sic() -> str:
    """SIC in `make demo` at both cuts, in words."""
    demo = record("demo")["results"]
    strongest = max(row["strength"] for row in demo)
    return "; ".join(f"{signal(name)} {_both(demo, signal=name, strength=strongest)}" for name in SHOWN)


@part
def demo_time() -> str:
    """Wall-clock time of `make demo`."""
    return minutes(sum(record("demo")["stage_seconds"].values()))


@part
def first_look_table() -> str:
    """SIC and z of the search for every family at 1 sigma: the tuned study beside the first look."""
    studies = _study(), record("contrastive_first_look")
    wanted = {"embedding": "id", "method": "cathode", "strength": 1.0}
    rows = []
    for name in dict.fromkeys(row["signal"] for row in studies[1]["results"]):
        mine = [found(study["results"], signal=name, **wanted) for study in studies]
        told = [value(one[k]["sic"]) for k in range(2) for one in mine]
        rows.append([signal(name), *told, *(_z(row, "z_after", studies[1]) for row in mine[1])])
    cuts = [percent(row["working_point"]) for row in mine[1]]
    head = [f"SIC, {which}, {cut}" for cut in cuts for which in ("tuned", "first look")]
    return markdown(["signal", *head, *(f"z, first look, {cut}" for cut in cuts)], rows)


@part
def first_look_null() -> str:
    """Significance without a signal in the first look, in words."""
    return _null("contrastive_first_look")


@part
def earlier_null() -> str:
    """The same of the first look before it, on seed 20291."""
    return _null("contrastive_first_look_20291")


def _null(name: str) -> str:
    nulls = sorted(record(name)["null"], key=lambda null: -null["working_point"])
    told = [f"{plus_minus(n['mean'], n['error'])} at {percent(n['working_point'])}" for n in nulls]
    spread = " and ".join(f"{np.std(n['z'], ddof=1):.2f}" for n in nulls)
    sets = f"{nulls[0]['instances']} pseudo-data sets that share no event"
    return f"{' and '.join(told)} in {sets}; from set to set it spreads by {spread}"


@part
def first_look_likelihood() -> str:
    """z of all bins of the score together beside z of each cut, in words."""
    found, strength = record("contrastive_first_look")["likelihood"], 1.0
    gains = sorted((g for g in found["gain"] if g["strength"] == strength), key=lambda g: -g["working_point"])
    told = [
        f"{plus_minus(g['ratio'], g['error'], 2)} times that of the cut at {percent(g['working_point'])}" for g in gains
    ]
    above = sum(z > 1 for z in found["null"])
    return f"{' and '.join(told)}; without a signal it is above 1 in {above} of {len(found['null'])}"


@part
def first_look_steered() -> str:
    """How well the background is known where a signal steered the classifiers, in words."""
    told = sorted(record("contrastive_first_look")["steered"], key=lambda of: -of["working_point"])
    pulls = [
        f"at {percent(of['working_point'])} {plus_minus(of['pull_mean'], of['pull_mean_error'], 2)}, width "
        f"{of['pull_width']:.2f}, true over expected {of['transfer']:.2f}"
        for of in told
    ]
    return f"{'; '.join(pulls)} ({told[0]['rows']} runs)"


@part
def confusion() -> str:
    """Diagonals of the confusion matrices below that of the transformer with labels, in words."""
    known = record("confusion")
    told = {name: np.array(of["diagonal"]) for name, of in known["matrices"].items()}
    best, each, words = told.pop("transformer with labels"), known["events_each"], []

    def lost(one: np.ndarray, other: np.ndarray) -> str:
        """Change of a mean over classes, in per cent, with its binomial error."""
        variance = sum((of * (1 - of)).sum() / each / len(of) ** 2 for of in (one, other))
        ratio = one.mean() / other.mean()
        return f"{plus_minus(100 * (ratio - 1), 100 * np.sqrt(variance) / other.mean(), 1)} %"

    for name, diagonal in told.items():
        words.append(f"{name} {lost(diagonal, best)}, of the SM alone {lost(diagonal[-1:], best[-1:])}")
    return "; ".join(words)


@part
def worlds_table() -> str:
    """What other worlds do to z without a signal and with one, and to SIC, at the loosest cut."""
    entries = record("variations")["worlds"]
    cut = max(e["working_point"] for e in entries)
    mean = lambda e, name: value({"mean": e[name]["mean"], "error": e[name]["standard_error"]}, 2)  # noqa: E731
    rows = []
    for world in dict.fromkeys(e["world"] for e in entries):
        none, with_one = (
            next(e for e in entries if (e["world"], e["working_point"], e["strength"] > 0) == (world, cut, injected))
            for injected in (False, True)
        )
        both = [mean(none, "z_bias"), mean(with_one, "z_bias"), mean(with_one, "sic_ratio")]
        rows.append([f"`{world}`", *both, f"{none['coverage_68']:.0%}", f"{with_one['coverage_68']:.0%}"])
    head = [
        "world",
        "z, nothing injected",
        "z, with a signal",
        "SIC over nominal",
        "coverage, nothing",
        "with a signal",
    ]
    return markdown(head, rows)


def _injected(study: dict[str, Any]) -> str:
    """Table of significances by signal and strength."""
    results, nulls = study["results"], sorted(study["null"], key=lambda null: -null["working_point"])
    cuts = points(results)
    head = ["injected", "S/√B", "pseudo-data sets", "z before the cut", *(f"z, cut at {percent(p)}" for p in cuts)]
    rows = [
        ["nothing", NONE, str(nulls[0]["instances"]), NONE, *(_z(null | {"z": null}, "z", study) for null in nulls)]
    ]
    for name in SHOWN:
        for strength in sorted({row["strength"] for row in found(results, signal=name)}):
            mine = found(results, signal=name, strength=strength, embedding="id", method="cathode")
            one = [signal(name), f"{strength:g}", str(mine[0]["instances"]), _z(mine[0], "z_before", study)]
            rows.append([*one, *(_z(row, "z_after", study) for row in mine)])
    return markdown(head, rows)


def _both_signals(way: tuple[str, str], quantity: str = "sic", strength: float = 1.0) -> list[str]:
    """A quantity of both signals at all cuts."""
    wanted = {"embedding": way[0], "method": way[1], "strength": strength}
    rows = [row for name in SHOWN for row in found(_study()["results"], signal=name, **wanted)]
    return [_z(row, quantity) if quantity == "z_after" else value(row[quantity]) for row in rows]


def _cuts() -> list[str]:
    """Head of a table of `_both_signals`."""
    return [f"{signal(name)}, {percent(p)}" for name in SHOWN for p in points(_study()["results"])]


@part
def study_ways() -> str:
    """SIC of the search beside what else can be done with the same events, at one sigma."""
    rows = [[words, *_both_signals(way)] for way, words in WAYS.items()]
    rows += [[f"the search, injected at {s:g}σ", *_both_signals(("id", "cathode"), strength=s)] for s in (0.5, 2.0)]
    paper = (f"{PAPER[name, where]:.1f}" for name in SHOWN for where in ("loose", "tight"))
    return markdown(["SIC", *_cuts()], [*rows, ["**paper C**, loose / tight point", *paper]])


@part
def study_z() -> str:
    """The analyst's significance with the flow, with a true background sample, and with labels, at one sigma."""
    ways = [("id", method) for method in ("cathode", "idealised", "supervised")]
    return markdown(["z at 1σ", *_cuts()], [[WAYS[way], *_both_signals(way, "z_after")] for way in ways])


@part
def study_families() -> str:
    """SIC of the other signals by what the encoder was trained on."""
    results = _study()["results"]
    names = dict.fromkeys(row["signal"] for row in results if row["signal"] not in SHOWN)
    rows = [
        [signal(n), *(_both(results, signal=n, strength=1.0, embedding=e, method="cathode") for e in ENCODERS)]
        for n in names
    ]
    return markdown(["SIC at 1σ", *ENCODERS.values()], rows)


@part
def study_ep() -> str:
    """Paired difference in SIC of the encoder without the family and that of the SM alone."""
    mine = [c for c in _study()["compared"] if (c["one"][0], c["other"][0]) == ("ep", "background")]
    rows = [
        [signal(n), *(signed(c["difference"], c["error"]) for c in found(mine, signal=n))]
        for n in dict.fromkeys(c["signal"] for c in mine)
    ]
    return markdown(["SIC, EP minus SM alone", *(f"cut at {percent(p)}" for p in points(mine))], rows)


@part
def study_null() -> str:
    """The runs without a signal, in a sentence."""
    study = _study()
    said = []
    for null in sorted(study["null"], key=lambda n: -n["working_point"]):
        mean = _z(null | {"z": null}, "z")
        said.append(
            f"z = {mean} at {percent(null['working_point'])}, {null['above_two_sigma']} of {null['instances']} above 2σ"
        )
    return "; ".join(said)


@part
def study_sculpting() -> str:
    """How many of the runs without a signal have a mass spectrum that the cut changes."""
    values = _study()["sculpting_p_values"]
    return f"{sum(p < 0.05 for p in values)} of {len(values)}"


@part
def study_closure() -> str:
    """The closure AUC."""
    auc = _study()["closure_auc"]
    return plus_minus(auc["mean"], auc["standard_error"], 4)


@part
def study_overlap() -> str:
    """Share of events that two pseudo-data sets have in common."""
    return share(_study()["instance_overlap"])


@part
def study_time() -> str:
    """Wall-clock time of the study, from simulation to the last trial."""
    return minutes(sum(_study()["stage_seconds"].values()))


@part
def study_stages() -> str:
    """The same, stage by stage."""
    names = {"simulate": "simulation", "train_encoder": "encoders", "embed": "embedding", "scan": "searches"}
    return ", ".join(f"{words} {_study()['stage_seconds'][name] / 60:.0f}" for name, words in names.items())


@part
def study_events() -> str:
    """Simulated events of the study's configuration."""
    return f"{sum(sample.events for sample in _config().simulate.samples.values()):,}"


@part
def study_luminosity() -> str:
    """Luminosity of its pseudo-data."""
    return f"{_config().pseudodata.luminosity:g} fb⁻¹"


def _config() -> Any:
    return load_config(ROOT / "configs" / "contrastive" / "study.yaml")


def _strengths(results: list[dict[str, Any]]) -> list[float]:
    return [s for s in (0.25, 0.5, 1.0, 2.0) if any(row["strength"] == s for row in results)]


def _curves() -> Iterator[tuple[list[dict[str, Any]], str, str]]:
    """Results, signal and encoder of every curve of figures 4 to 6."""
    for figure in ("fig4", "fig5", "fig6"):
        results = record("contrastive_figures")[figure]["results"]
        for name in dict.fromkeys(row["signal"] for row in results):
            for encoder in ENCODERS:
                if found(results, signal=name, embedding=encoder):
                    yield results, name, encoder


@part
def figures_4_to_6() -> str:
    """SIC against the injected strength."""
    rows = []
    for results, name, e in _curves():
        cells = (_both(results, signal=name, embedding=e, strength=s) for s in _strengths(results))
        rows.append([f"{signal(name)}, {ENCODERS[e]}", *cells])
    strengths = _strengths(record("contrastive_figures")["fig4"]["results"])
    return markdown(["SIC, injected at", *(f"{s:g}σ" for s in strengths)], rows)


@part
def figure_7() -> str:
    """The injection that is found with five sigma."""
    table = record("contrastive_figures")["fig7"]["required"]
    rows = []
    for name in dict.fromkeys(row["signal"] for row in table):
        cells = []
        for encoder in ENCODERS:
            mine = found(table, signal=name, embedding=encoder)
            texts = [plus_minus(r["required"], r["standard_error"], none=f"> {r['largest']:g}") for r in mine]
            cells.append(" / ".join(texts) or NONE)
        rows.append([signal(name), *cells])
    return markdown(["injection for 5σ", *ENCODERS.values()], rows)


@part
def figures_time() -> str:
    """Wall-clock time of figures 4 to 7, with the study's events and encoders at hand."""
    return minutes(sum(sum(figure["stage_seconds"].values()) for figure in record("contrastive_figures").values()))


@part
def sample_error() -> str:
    """Error of SIC that the finite evaluation sample leaves, as the record of the GPU has it for the same signals.

    Its sample has 221,000 continuum events against the study's 396,000 (gpu.yaml, study.yaml): an upper bound here.
    """
    rows = [row for row in record("gpu")["steps"]["sic"]["sic"] if row["signal"] in SHOWN]
    worst = {p: max(row["error_events"] for row in rows if row["point"] == p) for p in points(_study()["results"])}
    return " and ".join(f"{error:.1f} at {percent(p)}" for p, error in worst.items())


@part
def encoder_sizes() -> str:
    """Parameters of the laptop's encoder and of the paper's."""
    encoders = record("gpu")["steps"]["encoders"]
    return f"{encoders['laptop']['parameters']:,} parameters instead of {encoders['paper']['parameters']:,}"
