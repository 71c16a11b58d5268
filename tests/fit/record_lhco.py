"""`raypipe classify` beside scikit-learn on the LHC Olympics arrays: SIC against injected events (`make study-lhco`).

The idealised detector: data with injected signal against a template of true background, both of 39,600 events, and
40,000 background events that nothing was chosen on, which all draws share. Every method trains on the same events. The
scores lie in ``runs/lhco-study`` and are not made again.
"""

from __future__ import annotations

import platform
import sys
import time
from collections.abc import Callable, Iterator
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.ensemble import HistGradientBoostingClassifier

from raypipe.config import Classifier
from raypipe.config.sections import TABLE_TREES, WEAK_SIGNAL
from raypipe.files import atomic_path, digest, write_json
from raypipe.fit.classify import classify, contest_of
from raypipe.stats.roc import bootstrapped_efficiency, max_sic, poisson_weights, replicated_sic
from tests.events.readers.test_tables import DATA

RECORD = Path(__file__).parents[1] / "records" / "lhco.json"
SCORES = Path("runs") / "lhco-study"
ARRAYS = DATA / "lhco_sr"
FEATURES = slice(1, 5)  # The mass decides on the region, not on the events
CHOSEN_ON = 19_600  # Background events of the validation array that defaults were chosen on, with the training array
SIGNALS = (50, 100, 200, 395, 1000)  # Injected; SUPERVISED: 13,000 of them alone are the data
SUPERVISED, MANY = 0, 13_000
DRAWS = 3
POINTS = (0.01, 0.001)

Sets = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]
Method = Callable[[np.ndarray, np.ndarray, np.ndarray, int], np.ndarray]
"""Scores of events from data, template, the events and a seed."""


def drawn(signals: int, draw: int) -> Sets:
    """Data, template, and the background and signal to judge by; every draw deals events and signal anew."""
    names = ("train", "val", "extrasig_train", "extrasig_val")
    train, val, extra, judged = (np.load(ARRAYS / f"{name}.npy") for name in names)
    of_val = val[val[:, 5] == 0]
    background = np.r_[train[train[:, 5] == 0], of_val[:CHOSEN_ON]][:, FEATURES].astype(np.float32)
    signal = np.r_[train[train[:, 5] == 1], extra][:, FEATURES].astype(np.float32)
    rng = np.random.default_rng([20_309, draw])
    first, second = np.array_split(background[rng.permutation(len(background))], 2)
    signal = signal[rng.permutation(len(signal))]
    data = signal[:MANY] if signals == SUPERVISED else np.r_[first, signal[:signals]]
    return data, second, of_val[CHOSEN_ON:, FEATURES].astype(np.float32), judged[:, FEATURES].astype(np.float32)


def ours(config: Classifier) -> Method:
    """`raypipe classify` on one core."""

    def scored(data: np.ndarray, template: np.ndarray, events: np.ndarray, seed: int) -> np.ndarray:
        return classify(contest_of(data, template, events, config, seed=seed)).score

    return scored


def boosted(**settings: Any) -> Method:
    """Fifty classifiers of scikit-learn, each stopped by its own half of the events, averaged as in 2309.13111."""

    def scored(data: np.ndarray, template: np.ndarray, events: np.ndarray, seed: int) -> np.ndarray:
        x, y = np.r_[data, template], np.r_[np.ones(len(data)), np.zeros(len(template))]
        weights = np.where(y == 1, 1.0, len(data) / len(template))
        how = {"early_stopping": True, "validation_fraction": 0.5, "n_iter_no_change": 10, "max_iter": 200} | settings
        fits = (HistGradientBoostingClassifier(**how, random_state=50 * seed + k) for k in range(50))
        return np.mean([fit.fit(x, y, sample_weight=weights).predict_proba(events)[:, 1] for fit in fits], 0)

    return scored


METHODS: dict[str, Method] = {
    "raypipe classify": ours(WEAK_SIGNAL),
    "raypipe classify, trees of table searches": ours(TABLE_TREES),
    "scikit-learn HGB x 50 (2309.13111)": boosted(),
    # Leaves, depth, bins and l2 in the middle of what 2511.14832 found (`shared/studies/field.md`, 2.1).
    "scikit-learn HGB x 50, tuned (2511.14832)": boosted(
        learning_rate=0.1, max_leaf_nodes=36, max_depth=12, max_bins=95, l2_regularization=5.0
    ),
}
OURS = "raypipe classify"


def made(name: str, signals: int, draw: int) -> tuple[np.ndarray, np.ndarray, float]:
    """Scores of the judged background and signal, and CPU seconds; from disk where they are."""
    setting = WEAK_SIGNAL.model_dump() if name == OURS else name
    path = SCORES / f"{digest([setting, signals, draw])}.npz"
    if not path.exists():
        data, template, background, signal = drawn(signals, draw)
        start = time.process_time()
        score = METHODS[name](data, template, np.r_[background, signal], draw)
        took = time.process_time() - start
        SCORES.mkdir(parents=True, exist_ok=True)
        parts = {"background": score[: len(background)], "signal": score[len(background) :], "seconds": took}
        with atomic_path(path) as temporary, temporary.open("wb") as file:
            np.savez(file, **parts)
        print(f"{name}: {signals} signal events, draw {draw}: {took:.0f} CPU s", file=sys.stderr, flush=True)
    with np.load(path) as found:
        return found["background"], found["signal"], float(found["seconds"])


def sics(background: np.ndarray, signal: np.ndarray, replicas: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    """SIC at `POINTS` and its largest, (3, 1 + replicas): as it is, then with every event drawn anew."""
    best = max_sic(signal, background)
    assert best is not None
    shares = [*POINTS, best.background_efficiency]
    rows = []
    for share in shares:
        cut = np.sort(background)[::-1][round(share * len(background)) - 1]
        passed = background >= cut, signal >= cut
        found = [np.r_[p.mean(), bootstrapped_efficiency(p, drawn)] for p, drawn in zip(passed, replicas, strict=True)]
        rows.append(replicated_sic(found[1], found[0]))
    return np.array(rows)


def judged(values: np.ndarray) -> dict[str, list[float]]:
    """Mean over draws of (draws, 3, 1 + replicas), with the error of the draws and of the events they share."""
    mean = values.mean(0)
    draws = values[:, :, 0].std(0, ddof=1) / np.sqrt(len(values))
    return {"value": mean[:, 0].tolist(), "error": np.hypot(draws, mean[:, 1:].std(1)).tolist()}


def rows(draws: int) -> Iterator[dict[str, Any]]:
    """A row for every number of signal events and method: SIC, and ours over it, at both points and the largest."""
    replicas: tuple[np.ndarray, np.ndarray] | None = None
    for signals in (*SIGNALS, SUPERVISED):
        found, seconds = {}, {}
        for name in METHODS:
            parts = [made(name, signals, draw) for draw in range(draws)]
            if replicas is None:
                first, second = (np.arange(len(values)) for values in parts[0][:2])
                replicas = poisson_weights(first, 1), poisson_weights(second, 2)
            found[name] = np.stack([sics(b, s, replicas) for b, s, _ in parts])
            seconds[name] = float(np.mean([took for *_, took in parts]))
        for name, values in found.items():
            ratio = judged(found[OURS].mean(0, keepdims=True).repeat(2, 0) / values.mean(0, keepdims=True).repeat(2, 0))
            paired = (found[OURS] - values)[:, :, 0].std(0, ddof=1) / np.sqrt(draws) / values.mean(0)[:, 0]
            ratio["error"] = np.hypot(ratio["error"], paired).tolist()
            yield {
                "signals": signals,
                "method": name,
                "sic": judged(values),
                "ours_over_it": ratio,
                "cpu_seconds": seconds[name],
            }


def main() -> None:
    """The record, with ``--draws`` (3 when not given)."""
    draws = int(sys.argv[sys.argv.index("--draws") + 1]) if "--draws" in sys.argv else DRAWS
    packages = ("raypipe", "numpy", "xgboost", "scikit-learn")
    record: dict[str, Any] = {"date": date.today().isoformat(), "draws": draws, "points": list(POINTS)}
    record["versions"] = {"python": platform.python_version()} | {name: version(name) for name in packages}
    record["classifier"] = WEAK_SIGNAL.model_dump()
    record["rows"] = list(rows(draws))
    write_json(RECORD, record)
    for row in record["rows"]:
        shown = " ".join(f"{v:6.2f} +- {e:.2f}" for v, e in zip(*row["sic"].values(), strict=True))
        print(f"{row['signals'] or 'supervised':>10} {row['method']:44} {shown} {row['cpu_seconds']:5.0f} s")


if __name__ == "__main__":
    main()
