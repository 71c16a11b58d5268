"""Pseudo-data: what an experiment would have recorded, drawn from simulated events at a luminosity."""

from __future__ import annotations

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


def expected_overlap(background: dict[str, Events], luminosity: float) -> float:
    """Expected share of an instance's background events that another instance has too."""
    wanted = {name: luminosity * float(e.weight.sum()) for name, e in background.items()}
    return sum(wanted[name] ** 2 / len(e) for name, e in background.items()) / sum(wanted.values())


def draw(
    background: dict[str, Events],
    luminosity: float,
    window: MassWindow,
    *,
    seed: int,
    instance: int,
    signal: tuple[str, Events] | None = None,
    strength: float = 0.0,
) -> PseudoData:
    """Draw one pseudo-data set; more events wanted than were simulated is a `UserError`.

    Each SM sample gives Poisson(sum of weights x luminosity) events, without replacement and with probability
    proportional to weight; the background of an ``instance`` is the same whatever is injected. The signal gives
    Poisson(strength x sqrt(B)) events in the signal region, B being the expected background there, and as many outside
    as its mass distribution asks for. Instances share events (`expected_overlap`).
    """
    drawn, left, scale = [], [], []
    for name in sorted(background):
        events = background[name]
        rng = seeds.generator(seed, "pseudodata", instance, name)
        count = int(rng.poisson(float(events.weight.sum()) * luminosity))
        rows = _choose(events, count, rng, f"pseudodata.luminosity = {luminosity:g} fb^-1", name)
        drawn.append(events.take(rows))
        rest = events.take(np.setdiff1d(np.arange(len(events)), rows))
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


def _choose(events: Events, count: int, rng: np.random.Generator, why: str, name: str) -> np.ndarray:
    """Rows of ``count`` different events, drawn with probability proportional to weight."""
    if count > len(events):
        told = f"needs {count} events of {name!r} but its search split holds {len(events)}"
        raise UserError(f"{why} {told}: simulate more (simulate.samples.{name}.events) or ask for less")
    w = events.weight
    # Equal weights are the rule (one process, unweighted generator) and need no weighted draw.
    p = None if np.ptp(w) < 1e-12 * w.max() else w / w.sum()
    return np.sort(rng.choice(len(events), count, replace=False, p=p))
