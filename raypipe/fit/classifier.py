"""k-fold ensembles that tell data from background, every score out of fold (CWoLa, CATHODE step two; paper C)."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from raypipe import seeds
from raypipe.config.sections import Classifier
from raypipe.events.fields import fingerprint, first_equal
from raypipe.events.signed import weights_to_fit
from raypipe.events.twins import first_twin
from raypipe.models.bdt import Train, predict_bdt, train_bdt, train_here
from raypipe.stats.roc import tail_shares

EVERY_FOLD = -1  # Home of events that no fold trained on: the models of all folds score them
Mapper = Callable[[Callable[[Any], Any], Iterable[Any]], Iterable[Any]]
"""Maps a function over items, results in order: the builtin ``map``, or one that uses many cores."""


@dataclass(frozen=True)
class Contest:
    """All fits of a k-fold ensemble, data against background; calling it with (fold, member) makes one of them.

    Plain arrays only, so that a cluster can fit members anywhere. ``x``: (n, d) float32, both classes; ``y``: 1 for
    data; ``w``: weights that balance the classes; ``fold``: the fold that holds each event out. ``sets``: what is
    scored, (m, d) each; ``home``: (m,) the fold whose models score each event, or `EVERY_FOLD`. ``background``:
    (features, weights) of each fold where every fold has its own; ``x`` then holds the data alone.
    """

    x: np.ndarray
    y: np.ndarray
    w: np.ndarray
    fold: np.ndarray
    sets: dict[str, np.ndarray]
    home: dict[str, np.ndarray]
    config: Classifier
    seed: int
    threads: int = 1
    background: tuple[tuple[np.ndarray, np.ndarray], ...] = ()
    train: Train = train_here

    def rows(self, name: str, fold: int) -> np.ndarray:
        """Rows of a set that the models of ``fold`` score."""
        return np.flatnonzero((self.home[name] == fold) | (self.home[name] == EVERY_FOLD))

    def parts(self) -> list[tuple[int, int]]:
        """(fold, member) of every fit."""
        return [(k, m) for k in range(self.config.folds) for m in range(self.config.trained)]

    def __call__(self, part: tuple[int, int]) -> dict[str, np.ndarray]:
        """Train one member without the events of its fold; log-odds of `rows` of every set."""
        fold, member = part
        training, stop = self.training(fold), None
        turn = self._rotation(training[0], fold, member) if self.config.rotate else None
        if turn is not None:
            training = training[0] @ turn, *training[1:]
        if self.config.early_stopping is not None:
            held_out = seeds.generator(self.seed, "early-stopping", fold, member).random(len(training[0])) < 0.2
            training, stop = tuple(a[~held_out] for a in training), tuple(a[held_out] for a in training)
        own = seeds.integer(self.seed, "bdt", fold, member)
        booster = train_bdt(training, stop, self.config, seed=own, threads=self.threads, train=self.train)
        margins = {}
        for name, values in self.sets.items():
            here = values[self.rows(name, fold)].astype(np.float32)
            here = here if turn is None else here @ turn
            margins[name] = predict_bdt(booster, here, self.threads) if len(here) else np.empty(0)
        return margins

    def _rotation(self, x: np.ndarray, fold: int, member: int) -> np.ndarray:
        """(d, d) float32: scales every feature to unit width over ``x``, then turns the axes at random."""
        directions = seeds.generator(self.seed, "rotation", fold, member).standard_normal((x.shape[1], x.shape[1]))
        q, r = np.linalg.qr(directions)
        width = np.maximum(x.std(0, dtype=np.float64), 1e-12)
        return (q * np.sign(np.diag(r)) / width[:, None]).astype(np.float32)  # the signs make it uniform (Haar)

    def training(self, fold: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Features, labels and weights that ``fold`` trains on."""
        rows = np.flatnonzero(self.fold != fold)
        x, y, w = self.x[rows], self.y[rows], self.w[rows]
        if not self.background:
            return x, y, w
        values, weights = self.background[fold]
        scaled = (weights * (w.sum(dtype=np.float64) / weights.sum())).astype(np.float32)
        return np.concatenate([x, values.astype(np.float32)]), np.r_[y, np.zeros_like(scaled)], np.r_[w, scaled]


def balanced(
    data: np.ndarray, background: np.ndarray, data_weights: np.ndarray, background_weights: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Features, labels and weights of both classes, each scaled to the number of data events; float32."""
    scale = [len(data) / weights.sum() for weights in (data_weights, background_weights)]
    x = np.concatenate([data, background]).astype(np.float32)
    y = np.r_[np.ones(len(data)), np.zeros(len(background))].astype(np.float32)
    return x, y, np.r_[data_weights * scale[0], background_weights * scale[1]].astype(np.float32)


def member_margins(contest: Contest, mapper: Mapper = map) -> dict[str, np.ndarray]:
    """Log-odds (members, n) of every event of every set; where several folds may score it, their mean."""
    members = contest.config.trained
    total = {name: np.zeros((members, len(values))) for name, values in contest.sets.items()}
    count = {name: np.zeros(len(values)) for name, values in contest.sets.items()}
    parts = contest.parts()
    for (fold, member), margins in zip(parts, mapper(contest, parts), strict=True):
        for name, values in margins.items():
            rows = contest.rows(name, fold)
            total[name][member, rows] += values
            count[name][rows] += member == 0
    return {name: total[name] / count[name] for name in total}


@dataclass(frozen=True)
class FoldScores:
    """Scores of three kinds of events, as percentiles of the background template: small is data-like.

    The share is of the background in the same fold that looks at least as data-like (`raypipe.stats.roc.tail_shares`).
    ``others``, of neither class, are scored by the model of a random fold, so that their scores are distributed as
    out-of-fold scores are. ``margin``: mean log-odds of the data. ``better``: share of the background that looks
    strictly more data-like, by set; else of the template's percentiles below. ``by_sidebands``: percentiles are shares
    of the sideband data.
    """

    data: np.ndarray
    template: np.ndarray
    others: dict[str, np.ndarray]
    margin: np.ndarray
    better: dict[str, np.ndarray] = field(default_factory=dict)
    by_sidebands: bool = False

    def of(self, name: str) -> np.ndarray:
        """Percentiles of ``data``, ``template`` or one of the others."""
        return {"data": self.data, "template": self.template}.get(name, self.others.get(name))

    def above(self, name: str) -> np.ndarray:
        """Shares strictly above: `better`."""
        if name in self.better:
            return self.better[name]
        return np.searchsorted(np.sort(self.template), self.of(name)) / len(self.template)

    def passes(self, name: str, point: float) -> np.ndarray:
        """Which events have a percentile up to ``point``; events of equal score pass together."""
        return (self.of(name) <= point) | (self.above(name) <= point / 2)


@dataclass(frozen=True)
class Background:
    """What data are told from, and what percentiles are shares of: ``values`` (m, d) and ``weights`` (m,).

    ``training``: of each fold, (features, weights) that it trains against, instead of the template's other folds.
    """

    values: np.ndarray
    weights: np.ndarray
    training: tuple[tuple[np.ndarray, np.ndarray], ...] = ()


def out_of_fold_scores(
    data: np.ndarray,
    template: np.ndarray,
    template_weights: np.ndarray,
    config: Classifier,
    *,
    seed: int,
    background: Sequence[tuple[np.ndarray, np.ndarray]] | None = None,
    **options: Any,
) -> FoldScores:
    """The scores of one ensemble of ``config.ensemble`` classifiers: see `ensemble_scores` and `Background`."""
    one = config.model_copy(update={"members": config.ensemble, "ensembles": 1})
    against = Background(template, template_weights, tuple(background or ()))
    return ensemble_scores(data, against, one, seed=seed, **options)[0]


def ensemble_scores(
    data: np.ndarray,
    background: Background,
    config: Classifier,
    *,
    seed: int,
    threads: int = 1,
    others: dict[str, np.ndarray] | None = None,
    data_weights: np.ndarray | None = None,
    homes: dict[str, np.ndarray] | None = None,
    mapper: Mapper = map,
    train: Train = train_here,
) -> list[FoldScores]:
    """Train ``folds x members`` classifiers of ``data`` (n, d) against ``background``; score everything.

    Returns the scores of ``config.ensembles`` ensembles, each the average over a random choice of ``config.ensemble``
    of the members (paper C: 10 of 2). ``others``: further sets; ``homes``: the fold that scores each event of a set
    (``data``, ``template`` or one of ``others``), random where not given. ``train``: trains each booster.
    """
    sets = {"data": data, "template": background.values, **{f"other/{k}": v for k, v in (others or {}).items()}}
    given = {name if name in sets else f"other/{name}": home for name, home in (homes or {}).items()}
    fold_of = {
        name: given.get(name, seeds.generator(seed, "folds", name).permutation(np.arange(len(x)) % config.folds))
        for name, x in sets.items()
    }
    data_weights = np.ones(len(data)) if data_weights is None else data_weights
    if background.training:
        x, y, fold = data.astype(np.float32), np.ones(len(data), np.float32), fold_of["data"]
        w = (data_weights * (len(data) / data_weights.sum())).astype(np.float32)
    else:
        fitted = weights_to_fit(background.values, background.weights, fold_of["template"])
        x, y, w = balanced(data, background.values, data_weights, fitted)
        fold = np.r_[fold_of["data"], fold_of["template"]]
    contest = Contest(x, y, w, fold, sets, fold_of, config, seed, threads, background.training, train)
    margins, pick = member_margins(contest, mapper), seeds.generator(seed, "ensembles")
    chosen = [np.sort(pick.choice(config.trained, config.ensemble, replace=False)) for _ in range(config.ensembles)]
    return [
        _percentiles({k: v[members].mean(0) for k, v in margins.items()}, fold_of, background.weights, config.folds)
        for members in chosen
    ]


def _percentiles(
    raw: dict[str, np.ndarray], fold_of: dict[str, np.ndarray], template_weights: np.ndarray, folds: int
) -> FoldScores:
    """Log-odds as percentiles of the template scored by the same fold's models."""
    shares = {name: np.empty((2, len(values))) for name, values in raw.items()}
    for k in range(folds):
        here = fold_of["template"] == k
        reference, weights = raw["template"][here], template_weights[here]
        for name in raw:
            rows = fold_of[name] == k
            shares[name][:, rows] = tail_shares(raw[name][rows], reference, weights, own=name == "template")
    better, scores = ({k.removeprefix("other/"): v[i] for k, v in shares.items()} for i in (0, 1))
    data, template = scores.pop("data"), scores.pop("template")
    return FoldScores(data, template, scores, raw["data"], better)


def deal_folds(
    training: Sequence[np.ndarray], others: Sequence[np.ndarray], folds: int, seed: int
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """The fold of every event of the ``training`` tables, and of the same events where they occur in ``others``.

    Tables are (n, d), compared as float32. An event that occurs twice has one fold (`first_twin`); of other equal rows
    the k-th of one table goes with the k-th of another. Folds follow from seed and values, not from the order of the
    rows; their sizes differ by one at most. An event in no training table is `EVERY_FOLD`.
    """
    tables = [*training, *others]
    parts = np.cumsum([len(table) for table in tables])[:-1]
    unit, prints = _units([np.asarray(t, np.float32) for t in tables], parts)
    split = np.split(unit, parts)
    occurrences = np.stack([np.bincount(u, minlength=len(prints)) for u in split[: len(training)]])
    order = np.argsort(seeds.uniform_by_id(prints, seed, "folds"), kind="stable")
    fold = _dealt(occurrences[:, order], folds)
    fold[order] = fold.copy()
    found = [fold[u] for u in split]
    return found[: len(training)], found[len(training) :]


def _units(tables: list[np.ndarray], parts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Number of the event that each row of all tables is, and a hash of each event."""
    import pandas as pd  # half a second, which trials do not need

    rows = np.concatenate(tables)
    prints = fingerprint(rows)
    equal, twin = first_equal(prints), first_twin(rows)
    own = np.arange(len(rows))
    lonely = twin == own
    lonely[twin[~lonely]] = False  # the first of several twins is one of them
    # How many earlier rows of its table are equal.
    number = np.concatenate([pd.Series(e).groupby(e).cumcount() for e in np.split(equal, parts)])
    key = equal * (number.max(initial=0) + 1) + np.where(lonely, number, 0)
    _, first, unit = np.unique(key, return_index=True, return_inverse=True)
    with np.errstate(over="ignore"):
        hashes = prints[first] + number[first].astype(np.uint64) * np.uint64(0xD1B54A32D192ED03)
    return unit, hashes


def _dealt(occurrences: np.ndarray, folds: int) -> np.ndarray:
    """Folds of events in random order that occur so many times in each table, (tables, events)."""
    fold = np.full(occurrences.shape[1], EVERY_FOLD)
    load = np.zeros((len(occurrences), folds), np.int64)
    kinds, which = np.unique(occurrences, axis=1, return_inverse=True)
    # What weighs most is dealt first, single events level what it leaves uneven.
    for kind in np.argsort(-kinds.sum(0), kind="stable"):
        times = kinds[:, kind]
        if not times.any():
            continue
        members = np.flatnonzero(which.reshape(-1) == kind)
        shares = _shares(len(members), int(times.sum()), load[times > 0].sum(0))
        fold[members] = np.repeat(np.arange(folds), shares)
        load += np.outer(times, shares)
    return fold


def _shares(count: int, size: int, load: np.ndarray) -> np.ndarray:
    """How many of ``count`` events of ``size`` rows each fold gets, so that the loads (folds,) become even."""
    shares = np.zeros(len(load), np.int64)
    while count and np.ptp(load) >= size:
        least = int(np.argmin(load))
        load[least] += size
        shares[least] += 1
        count -= 1
    shares += count // len(load)
    shares[np.argsort(load, kind="stable")[: count % len(load)]] += 1
    return shares
