"""From the rows of all comparisons to bands, p-values, limits and their calibration (paper B, section 4)."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np

from raypipe.config.multilepton import MultileptonConfig
from raypipe.search.multilepton import BOOTSTRAP
from raypipe.search.result import DATA, NO_SIGNAL, Trial
from raypipe.stats.calibration import bands, calibration, combined_p, p_value
from raypipe.stats.comparison import SMALL_IS_ANOMALOUS, STATISTICS, asymptotic_comparison
from raypipe.stats.response import crossing_limit, expected_cls_limit

Rows = list[dict[str, Any]]


class Values:
    """The statistics of finished comparisons as arrays."""

    def __init__(self, rows: Rows, config: MultileptonConfig) -> None:
        self.tests = [(loss, name) for loss in config.networks.losses for name in STATISTICS]
        self.strengths = np.array(config.scan.strengths)
        self._found: dict[tuple, dict[str, float]] = {
            (r["signal"], r["strength"], r["instance"], r["loss"]): r for r in rows if r["status"] == "ok"
        }
        self.config = config

    def of(self, signal: str, strength: float, test: tuple[str, str], instances: int) -> np.ndarray:
        """(instances,) of one statistic; NaN where a comparison is missing."""
        loss, name = test
        keys = [(signal, strength, i, loss) for i in range(instances)]
        return np.array([self._found[k][name] if k in self._found else np.nan for k in keys])

    def null(self, test: tuple[str, str]) -> np.ndarray:
        """(N,) bootstraps."""
        return self.of(BOOTSTRAP, 0.0, test, self.config.bootstrap.count)

    def injected(self, signal: str, test: tuple[str, str]) -> np.ndarray:
        """(strengths, instances)."""
        return np.array([self.of(signal, x, test, self.config.scan.instances) for x in self.strengths])

    def matrix(self, signal: str, strength: float, instances: int) -> np.ndarray:
        """(instances, tests), signed so that large is anomalous."""
        columns = [sign(t) * self.of(signal, strength, t, instances) for t in self.tests]
        return np.column_stack(columns) if columns else np.empty((instances, 0))


def sign(test: tuple[str, str]) -> int:
    """-1 for a statistic of which small values are anomalous."""
    return -1 if test[1] in SMALL_IS_ANOMALOUS else 1


def finished(values: np.ndarray) -> np.ndarray:
    """Rows without NaN."""
    return values[np.isfinite(values).all(axis=tuple(range(1, values.ndim)))]


def analyse(rows: Rows, config: MultileptonConfig, acceptance: Mapping[str, float]) -> dict[str, Any]:
    """Everything that is quoted, JSON-ready. Comparisons that are missing or failed are left out.

    ``tests``: one entry a loss and statistic with ``bands``, p-value of the data, calibration and limits (``crossing``
    and ``cls``, in ``events`` and ``fb``). ``combined``: p-values over all tests.
    """
    values = Values(rows, config)
    null = finished(values.matrix(BOOTSTRAP, 0.0, config.bootstrap.count))
    tests = []
    for column, test in enumerate(values.tests):
        own = null[:, column]
        entry: dict[str, Any] = {"loss": test[0], "statistic": test[1], "bands": bands(sign(test) * own)}
        observed = sign(test) * values.of(DATA, 0.0, test, 1)[0]
        if np.isfinite(observed):
            entry["data"] = {"value": sign(test) * observed, "p": p_value(observed, own)}
        checks = sign(test) * values.of(NO_SIGNAL, 0.0, test, config.scan.calibration)
        if np.isfinite(checks).sum() >= 20:
            entry["calibration"] = calibration(checks[np.isfinite(checks)], own)
        if test[1] == "likelihood_ratio":
            entry["asymptotic"] = asymptotic_comparison(own)
        entry["limits"] = {s: _limits(values, s, test, own, acceptance.get(s)) for s in config.scan.signals}
        tests.append(entry)
    return {"tests": tests, "combined": _combined(values, null), "bootstraps": len(null)}


def _limits(
    values: Values, signal: str, test: tuple[str, str], null: np.ndarray, acceptance: float | None
) -> dict[str, Any] | None:
    injected = sign(test) * values.injected(signal, test)
    there = np.isfinite(injected).all(1)
    if there.sum() < 2:
        return None
    strengths, injected = values.strengths[there], injected[there]
    found = {"crossing": crossing_limit, "cls": expected_cls_limit}
    limits = {kind: limit(null, strengths, injected) for kind, limit in found.items()}
    per_event = 1 / (values.config.compare.luminosity * acceptance) if acceptance else None
    return {
        kind: {"events": asdict(limit), "fb": asdict(limit.scaled(per_event)) if per_event else None}
        for kind, limit in limits.items()
    }


def _combined(values: Values, null: np.ndarray) -> dict[str, Any]:
    """Global p-values: of the data, their share below 5 % without signal, their median for each injection."""

    def p(signal: str, strength: float, instances: int) -> list[float]:
        return [combined_p(row, null) for row in finished(values.matrix(signal, strength, instances))]

    out: dict[str, Any] = {"tests": len(values.tests)}
    if observed := p(DATA, 0.0, 1):
        out["data_p"] = observed[0]
    scan = values.config.scan
    if checks := p(NO_SIGNAL, 0.0, scan.calibration):
        share = float(np.mean(np.array(checks) <= 0.05 + 1e-12))
        error = float(np.sqrt(0.05 * 0.95 * (1 / len(checks) + 1 / len(null))))
        out["calibration"] = {"data_sets": len(checks), "type_i": share, "error": error}
    out["median_p"] = {
        signal: {f"{x:g}": float(np.median(found)) for x in scan.strengths if (found := p(signal, x, scan.instances))}
        for signal in scan.signals
    }
    return out


def search_summary(rows: list[dict[str, Any]], config: MultileptonConfig, trial: Trial) -> dict[str, Any]:
    """One data set: its statistics, their p-values and the combined one, from ledger rows with the bootstraps."""
    values = Values(rows, config)
    failed = [r for r in rows if r["status"] != "ok"]
    null = finished(values.matrix(BOOTSTRAP, 0.0, config.bootstrap.count))
    own = np.array([sign(t) * values.of(trial.signal, trial.strength, t, trial.instance + 1)[-1] for t in values.tests])
    out: dict[str, Any] = {"trial": trial.label(), "bootstraps": len(null), "failed": failed, "tests": []}
    if np.isfinite(own).all() and len(null):
        for k, test in enumerate(values.tests):
            entry = {"value": float(sign(test) * own[k]), "p": p_value(own[k], null[:, k])}
            out["tests"].append({"loss": test[0], "statistic": test[1], **entry})
        out["combined_p"] = combined_p(own, null)
    return out
