"""What an excess looks like: the process labels that the events after a cut resemble, their features, and their list.

No truth enters: recorded data can be asked the same. Densities by label are those of the nearest simulated events: the
clusters of a contrastive latent space are no Gaussians, by which a quadratic discriminant is off by up to a fifth.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from scipy.spatial import cKDTree
from scipy.stats import ks_2samp

from raypipe.events.latents import Events
from raypipe.fit.classifier import FoldScores
from raypipe.search.case import Case, Template

PREFIX = "identity_"  # Of the arrays in the ledger
MOST = 2000  # Simulated events of a label
NEIGHBOURS = 50  # Simulated events that a posterior is read from: it is known to 7 % where it is a half
LISTED = 50  # Events in the list
LOW = 32  # Bits in the lower part of an event id: the ledger keeps doubles, which hold 53

Labels = Mapping[int, np.ndarray]  # Latents (n, d) of simulated events by process label


def labelled(simulated: Mapping[str, Events], groups: Mapping[str, int]) -> dict[int, np.ndarray]:
    """Latents by label of simulated events by sample, at most `MOST` a label and as many of each of its samples."""
    found: dict[int, list[np.ndarray]] = {}
    for name in sorted(simulated):
        if len(simulated[name]):
            found.setdefault(groups[name], []).append(simulated[name].latent)
    return {label: np.concatenate([one[: MOST // len(some)] for one in some]) for label, some in sorted(found.items())}


def posterior(latent: np.ndarray, labels: Labels) -> np.ndarray:
    """Posterior (n, labels) of events (n, d), all labels being equally likely before.

    The shares of the labels among the `NEIGHBOURS` nearest simulated events, each relative to the label's size.
    """
    sizes = np.array([len(one) for one in labels.values()])
    tree, label = cKDTree(np.concatenate(list(labels.values()))), np.repeat(np.arange(len(sizes)), sizes)
    near = label[tree.query(latent, k=np.arange(1, min(NEIGHBOURS, len(label)) + 1))[1]]
    density = np.stack([(near == k).sum(1) / size for k, size in enumerate(sizes)], axis=1)
    return density / density.sum(1, keepdims=True)


def identify(
    case: Case, scores: FoldScores, template: Template, row: Mapping[str, Any], labels: Labels
) -> dict[str, np.ndarray]:
    """Arrays for the ledger about the cut of ``row`` (`raypipe.search.counting.counting_row`): see `read`."""
    events, point = case.data.events.take(case.inside), row["working_point"]
    chosen, beside = events.take(scores.passes("data", point)), scores.passes("sideband_data", point)
    tables = {"labels": _excess(chosen.latent, scores, template, row, labels)}
    tables["features"] = _features(chosen.features, case.data.events.features[case.side][beside])
    tables["list"] = _list(events, scores, labels)
    return {f"{PREFIX}{name}_{k}": values for name, table in tables.items() for k, values in table.items()}


def read(arrays: Mapping[str, np.ndarray]) -> dict[str, list[dict[str, Any]]]:
    """The tables in the arrays of a trial, entry by entry, if there are any.

    ``labels``: process label, events ``observed, expected``, ``excess`` and its ``error``. ``features``: the medians
    ``selected`` and ``background``, and ``p``. ``list``: ``event_id``, ``mass`` in GeV, ``percentile`` of the
    background, the likeliest ``label`` and its ``posterior``.
    """
    tables: dict[str, dict[str, list[float]]] = {}
    for name in arrays:
        if name.startswith(PREFIX):
            table, _, column = name.removeprefix(PREFIX).partition("_")
            tables.setdefault(table, {})[column] = arrays[name].tolist()
    found = {k: [dict(zip(t, row, strict=True)) for row in zip(*t.values(), strict=True)] for k, t in tables.items()}
    for entry in found.get("list", []):
        entry["event_id"] = int(entry.pop("high")) << LOW | int(entry.pop("low"))
    return found


def _excess(
    selected: np.ndarray, scores: FoldScores, template: Template, row: Mapping[str, Any], labels: Labels
) -> dict[str, np.ndarray]:
    """Posteriors of the selected events, summed, and those of the template's; their sums are the counts of ``row``.

    Error: of the Poisson counts, observed or if more expected; of the template's; and the row's, shared by all labels.
    """
    passed = scores.passes("template", row["working_point"])
    weight = (template.weight * np.where(template.is_higgs, 1.0, row["kappa"]))[passed, None]
    data, background = posterior(selected, labels), posterior(template.latent[passed], labels)
    observed, expected = data.sum(0), (weight * background).sum(0)
    counts = np.maximum((data**2).sum(0), (weight * background**2).sum(0))
    shared = expected * row["expected_after_error"] / row["expected_after"]
    error = np.sqrt(counts + ((weight * background) ** 2).sum(0) + shared**2)
    found = {"label": np.array(list(labels)), "observed": observed, "expected": expected}
    return found | {"excess": observed - expected, "error": error}


def _features(selected: np.ndarray, background: np.ndarray) -> dict[str, np.ndarray]:
    """Medians of the features (n, f) of selected events and of those of the sidebands that pass the same cut, and the
    p-value of a Kolmogorov-Smirnov test between both (too large for few discrete values); NaN without events."""
    if not (len(selected) and len(background)):
        return dict.fromkeys(("selected", "background", "p"), np.full(selected.shape[1], np.nan))
    p = [ks_2samp(a, b, method="asymp").pvalue for a, b in zip(selected.T, background.T, strict=True)]
    return {"selected": np.median(selected, 0), "background": np.median(background, 0), "p": np.array(p)}


def _list(events: Events, scores: FoldScores, labels: Labels) -> dict[str, np.ndarray]:
    """The `LISTED` events that look least like background, in this order; the id in its two parts."""
    rows = np.lexsort((-scores.margin, scores.data))[:LISTED]
    ids, likely = events.event_id[rows], posterior(events.latent[rows], labels)
    found = {"high": ids >> LOW, "low": ids & (2**LOW - 1), "mass": events.mass[rows], "percentile": scores.data[rows]}
    return found | {"label": np.array(list(labels))[likely.argmax(1)], "posterior": likely.max(1)}
