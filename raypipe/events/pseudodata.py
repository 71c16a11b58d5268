"""Pseudo-data: what an experiment would have recorded, drawn from simulated events at a luminosity."""

from dataclasses import dataclass

import numpy as np

from raypipe import seeds
from raypipe.config.sections import MassWindow
from raypipe.errors import UserError
from raypipe.events.latents import Events


@dataclass(frozen=True)
class PseudoData:
    """One instance of the recorded data; ``is_signal`` (n,) is truth, which no analysis step may look at.

    ``left_over``, ``signal_left_over``: events of the search split that were not drawn, independent truth for
    efficiencies; ``left_over_scale``: factor on each of their weights that restores the sample's full yield.
    """

    events: Events
    is_signal: np.ndarray
    left_over: Events
    left_over_scale: np.ndarray
    signal_left_over: Events | None


def expected_background(background: dict[str, Events], luminosity: float, window: MassWindow) -> float:
    """Expected SM events in the signal region."""
    return luminosity * sum(float(e.weight[window.inside(e.mass)].sum()) for e in background.values())


def expected_overlap(background: dict[str, Events], luminosity: float, disjoint: bool = False) -> float:
    """Expected share of an instance's background events that another instance has too."""
    if disjoint:
        return 0.0
    wanted = {name: luminosity * float(e.weight.sum()) for name, e in background.items()}
    return sum(wanted[name] ** 2 / len(e) for name, e in background.items()) / sum(wanted.values())


def disjoint_instances(background: dict[str, Events], luminosity: float) -> int:
    """How many instances without a common background event the simulated events hold.

    Each has its share of every sample, which holds the yield plus four standard deviations of yield and share.
    """
    found = []
    for events in background.values():
        wanted = luminosity * float(events.weight.sum())
        found.append(int(len(events) / (wanted + 4 * np.sqrt(2 * wanted) + 1)))
    return min(found)


def check_disjoint(background: dict[str, Events], luminosity: float, instances: int) -> None:
    """A `UserError` where fewer disjoint instances fit into the simulated events than are asked for.

    So are events of different weights: a draw that takes most of a share would take the light ones too often.
    """
    if uneven := [name for name, events in background.items() if not _even(events.weight)]:
        raise UserError(f"pseudodata.disjoint: the events of {uneven[0]!r} have different weights")
    fit = disjoint_instances(background, luminosity)
    if instances > fit:
        least = min(background, key=lambda name: disjoint_instances({name: background[name]}, luminosity))
        told = f"{fit} of {luminosity:g} fb^-1 fit into the {len(background[least])} search events of {least!r}"
        more = f"simulate more (simulate.samples.{least}.events) or ask for less"
        raise UserError(f"pseudodata.disjoint: {instances} instances are asked for and {told}: {more}")


def draw(
    background: dict[str, Events],
    luminosity: float,
    window: MassWindow,
    *,
    seed: int,
    instance: int,
    signal: tuple[str, Events] | None = None,
    strength: float = 0.0,
    disjoint: bool = False,
    truth: bool = True,
) -> PseudoData:
    """Draw one pseudo-data set; more events wanted than were simulated is a `UserError`.

    Each SM sample gives Poisson(sum of weights x luminosity) events, without replacement and with probability
    proportional to weight; the background of an ``instance`` is the same whatever is injected. The signal gives
    Poisson(strength x sqrt(B)) events in the signal region, B being the expected background there, and as many outside
    as its mass distribution asks for. Instances share events (`expected_overlap`), if ``disjoint`` none of the
    background: each is drawn from its own share of the simulated events, which is left over but for what was drawn.
    Without ``truth`` nothing is kept of what is left over: it is most of the work where much was simulated.
    """
    instances = disjoint_instances(background, luminosity) if disjoint else 0
    if disjoint:
        check_disjoint(background, luminosity, instance + 1)
    drawn, left, scale = [], [], []
    for name in sorted(background):
        events = background[name]
        rng = seeds.generator(seed, "pseudodata", instance, name)
        count = int(rng.poisson(float(events.weight.sum()) * luminosity))
        own = np.arange(len(events))
        if disjoint:
            share = seeds.uniform_by_id(events.event_id, seed, "disjoint", name) * instances
            own = np.flatnonzero(share.astype(np.int64) == instance)
        rows = own[_choose(events.take(own), count, rng, f"pseudodata.luminosity = {luminosity:g} fb^-1", name)]
        drawn.append(events.take(rows))
        rest = events.take(np.setdiff1d(np.arange(len(events)), rows) if truth else rows[:0])
        left.append(rest)
        scale.append(np.full(len(rest), events.weight.sum() / max(rest.weight.sum(), 1e-300)))
    data = Events.concatenate(drawn)
    is_signal = np.zeros(len(data), dtype=bool)
    signal_left = None
    if signal is not None:
        name, events = signal
        share = float(events.weight[window.inside(events.mass)].sum() / events.weight.sum())
        if share == 0:
            raise UserError(f"signal {name!r} has no events in {window.sr_low:g}-{window.sr_high:g} GeV")
        wanted = strength * np.sqrt(expected_background(background, luminosity, window))
        rng = seeds.generator(seed, "injection", instance, name)
        count = int(rng.poisson(wanted / share))
        rows = _choose(events, count, rng, f"strength {strength:g}", name)
        signal_left = events.take(np.setdiff1d(np.arange(len(events)), rows))
        data = Events.concatenate([data, events.take(rows)])
        is_signal = np.r_[is_signal, np.ones(len(rows), dtype=bool)]
    order = seeds.generator(seed, "pseudodata-order", instance).permutation(len(data))
    return PseudoData(data.take(order), is_signal[order], Events.concatenate(left), np.concatenate(scale), signal_left)


def _even(weight: np.ndarray) -> bool:
    """Equal weights are the rule (one process, unweighted generator) and need no weighted draw."""
    return bool(np.ptp(weight) < 1e-12 * weight.max())


def _choose(events: Events, count: int, rng: np.random.Generator, why: str, name: str) -> np.ndarray:
    """Rows of ``count`` different events, drawn with probability proportional to weight."""
    if count > len(events):
        told = f"needs {count} events of {name!r} but its search split holds {len(events)}"
        raise UserError(f"{why} {told}: simulate more (simulate.samples.{name}.events) or ask for less")
    w = events.weight
    p = None if _even(w) else w / w.sum()
    return np.sort(rng.choice(len(events), count, replace=False, p=p))
