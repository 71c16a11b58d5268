"""A trial of paper B: data against simulated background with small networks; every comparison is one `Trial`.

A comparison is of a data set with THE reference, a fixed sample of simulated events. Its kinds, by `Trial.signal`:

* ``bootstrap``: the null hypothesis, drawn with replacement from simulated events outside the reference: one drawn from
  the reference repeats the events it is compared with, and independent data would look anomalous beside it.
* ``none``: background-only data from a third set of events: the test that p-values are uniform.
* the name of a signal: the same with injected signal.
* ``data``: the user's recorded data.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from raypipe import seeds
from raypipe.config.multilepton import MultileptonConfig
from raypipe.errors import UserError
from raypipe.events.pools import Pool
from raypipe.fit.stacked import LabelledSample, Network, ensemble_scores, train_stack
from raypipe.search.result import ALONE, DATA, NO_SIGNAL, Result, Tools, Trial
from raypipe.stats.comparison import compute

BOOTSTRAP = "bootstrap"
MASSES = ("m_4l", "m_ee", "m_mumu")


@dataclass(frozen=True)
class Tables:
    """Inputs of every comparison; `divide` makes them."""

    reference: Pool  # The events that all data sets are compared with
    null: Pool  # Pool of the bootstraps, disjoint from the reference
    nature: Pool  # Pool of the pseudo-data, disjoint from both (empty when there is nothing to inject into)
    signals: dict[str, Pool]  # Simulated signals
    data: np.ndarray | None  # (n, features) recorded data
    expected: float  # Expected background events


def divide(
    simulation: Pool, nature: Pool | None, signals: dict[str, Pool], data: np.ndarray | None, config: MultileptonConfig
) -> Tables:
    """Choose the reference among the simulated events; the rest of them is the pool of the bootstraps.

    ``nature``: background for pseudo-data, or None to give it half of the simulation where pseudo-data are asked for.
    """
    if data is not None and config.blind is not False:
        raise UserError("files.data: blind until `raypipe unblind RUN`")
    compare = config.compare
    pseudo = bool(config.scan.signals or config.scan.calibration)
    expected = compare.expected or compare.luminosity * float((nature or simulation).weight.sum())
    if expected <= 0:
        raise UserError("compare.expected: the background weights are all zero and no number is given")
    if nature is None:
        half = seeds.generator(config.seed, "nature").random(len(simulation)) < (0.5 if pseudo else 0.0)
        simulation, nature = simulation.take(~half), simulation.take(half)
    count = round(expected * compare.reference_ratio)
    if count < 1:
        raise UserError(f"compare: {expected:g} expected events make an empty reference")
    why = f"the reference ({compare.reference_ratio:g} x {expected:.0f} expected events)"
    rows = simulation.draw(count, seeds.generator(config.seed, "reference"), False, why)
    reference = simulation.take(rows)
    rest = simulation.take(np.setdiff1d(np.arange(len(simulation)), rows))
    if len(rest) < 2 * expected:
        raise UserError(
            f"{len(rest)} simulated events are left beside the reference for bootstraps of {expected:.0f} expected "
            "events: at least twice as many are needed, ten times are better (a bootstrap repeats events): "
            "simulate more, or lower compare.expected or compare.reference_ratio"
        )
    spread = reference.values.std(0)
    if (spread == 0).any():
        name = config.features[int(np.argmax(spread == 0))]
        raise UserError(f"feature {name!r} is constant in the reference: it cannot be standardised; leave it out")
    if config.bootstrap.electron_scale or config.bootstrap.muon_scale:
        keys, features = "bootstrap.electron_scale and bootstrap.muon_scale", set(config.features)
        if other := sorted(features - set(MASSES)):
            raise UserError(f"{keys} act on {', '.join(MASSES)} only, not on {other[0]!r}")
        if set(MASSES) - features:
            raise UserError(f"{keys} need the features {', '.join(MASSES)}")
    return Tables(reference, rest, nature, signals, data, expected)


def scale_masses(values: np.ndarray, features: Sequence[str], electron: float, muon: float) -> np.ndarray:
    """Masses of four leptons after scaling all electron and all muon momenta; exact for massless leptons.

    With s_e and s_mu the factors: m_ee and m_mumu scale with them, and
    ``m_4l^2 -> s_e^2 m_ee^2 + s_mu^2 m_mumu^2 + s_e s_mu (m_4l^2 - m_ee^2 - m_mumu^2)``, the last bracket being twice
    the product of the two pairs' momenta. Changes of the selection are neglected.
    """
    column = {name: values[:, list(features).index(name)] for name in MASSES}
    ee, mm = column["m_ee"] ** 2, column["m_mumu"] ** 2
    product = column["m_4l"] ** 2 - ee - mm
    new = {
        "m_ee": electron * column["m_ee"],
        "m_mumu": muon * column["m_mumu"],
        "m_4l": np.sqrt(np.maximum(electron**2 * ee + muon**2 * mm + electron * muon * product, 0.0)),
    }
    return np.column_stack([new[name] for name in features])


def _bootstrap(tables: Tables, config: MultileptonConfig, instance: int) -> np.ndarray:
    uncertain = config.bootstrap
    rng = seeds.generator(config.seed, "nuisance", instance)
    electron, muon, rate = rng.normal(size=3) * (uncertain.electron_scale, uncertain.muon_scale, 1.0)
    factor = float(np.exp(np.log1p(uncertain.normalisation) * rate))
    rng = seeds.generator(config.seed, "bootstrap", instance)
    rows = tables.null.draw(_count(tables.expected * factor, config, rng), rng, True, "bootstrap.count")
    values = tables.null.values[rows]
    if uncertain.electron_scale or uncertain.muon_scale:
        values = scale_masses(values, config.features, 1 + electron, 1 + muon)
    return values


def _count(expected: float, config: MultileptonConfig, rng: np.random.Generator) -> int:
    return int(rng.poisson(expected)) if config.compare.counts == "poisson" else round(expected)


def data_set(tables: Tables, config: MultileptonConfig, trial: Trial) -> tuple[np.ndarray, int]:
    """The data of a comparison (n, features) and how many of them are injected signal.

    The background of an ``instance`` is the same whatever is injected, so that scans over signal and strength compare
    like with like.
    """
    if trial.signal == DATA:
        if tables.data is None:
            raise UserError("there are no recorded data to search (files.data), or the search is blind")
        return tables.data, 0
    if trial.signal == BOOTSTRAP:
        return _bootstrap(tables, config, trial.instance), 0
    # Injections and background-only data sets must not share backgrounds, or limits and calibration would be one test.
    kind = "none" if trial.signal == NO_SIGNAL else "injected"
    rng = seeds.generator(config.seed, "pseudodata", kind, trial.instance)
    count = _count(tables.expected, config, rng)
    values = tables.nature.values[tables.nature.draw(count, rng, False, "a pseudo-data set")]
    if trial.signal == NO_SIGNAL:
        return values, 0
    signal = tables.signals[trial.signal]
    rng = seeds.generator(config.seed, "injection", trial.instance, trial.signal)
    # One order of all signal events, of which a stronger injection takes more: strengths of an instance are nested.
    rows = signal.order(rng)
    rng = seeds.generator(config.seed, "injection-count", trial.instance, trial.signal, repr(trial.strength))
    wanted = _count(trial.strength, config, rng)
    if wanted > len(rows):
        raise UserError(
            f"scan.strengths: {wanted} events of signal {trial.signal!r} wanted but {len(rows)} passed the selection: "
            + ("its acceptance is zero" if not len(rows) else "simulate more or ask for less")
        )
    return np.concatenate([values, signal.values[rows[:wanted]]]), wanted


def labelled(tables: Tables, config: MultileptonConfig, trial: Trial) -> tuple[LabelledSample, int]:
    """What the networks of a comparison are trained on, standardised as the reference, and the injected events."""
    values, injected = data_set(tables, config, trial)
    reference = tables.reference.values
    mean, spread = reference.mean(0), reference.std(0)
    n, m = len(values), len(reference)
    sample = LabelledSample(
        (np.concatenate([values, reference]) - mean) / spread,
        np.arange(n + m) < n,
        np.r_[np.ones(n), np.full(m, tables.expected / m)],
    )
    sample.check(f"data set {trial.label()!r}", config.networks.batch_size)
    return sample, injected


def compare(tables: Tables, config: MultileptonConfig, trials: Sequence[Trial], tools: Tools = ALONE) -> list[Result]:
    """All networks of all given comparisons, trained together; one result a comparison, with one row a loss.

    Columns of a row: ``signal``, ``strength``, ``instance``, ``loss``, ``n_data``, ``n_reference``, ``n_signal``
    (truth), the statistics of `raypipe.stats.comparison.STATISTICS`, and ``seconds`` (the time of the group shared
    out evenly).
    """
    start = time.perf_counter()
    prepared = [labelled(tables, config, trial) for trial in trials]
    samples = [sample for sample, _ in prepared]
    members = config.networks.members
    kinds = [t.signal if t.signal in (BOOTSTRAP, NO_SIGNAL, DATA) else "injected" for t in trials]
    networks = [Network(k, (kinds[k], t.instance, m)) for k, t in enumerate(trials) for m in range(members)]
    rows: list[list[dict]] = [[] for _ in trials]
    for loss in config.networks.losses:
        stack = train_stack(samples, networks, config.networks, loss, config.seed, device=tools.device)
        for k, (trial, (sample, injected)) in enumerate(zip(trials, prepared, strict=True)):
            own = stack.take(list(range(k * members, (k + 1) * members)))
            scores = ensemble_scores(own, sample.features, loss)
            n_data = int(sample.is_data.sum())
            row = {"signal": trial.signal, "strength": trial.strength, "instance": trial.instance, "loss": loss}
            row |= {"n_data": n_data, "n_reference": len(sample.is_data) - n_data, "n_signal": injected}
            rows[k].append(row | compute(scores, sample.is_data, sample.weights, loss))
    spent = {"seconds": (time.perf_counter() - start) / len(trials)}
    counts = [{"n_data": np.array([each[0]["n_data"]], dtype=float)} for each in rows]
    return [Result([r | spent for r in each], n, metric="std_score") for each, n in zip(rows, counts, strict=True)]
