"""CATHODE (2109.00546): a background that is learnt in the sidebands and interpolated to the signal region."""

import time
from dataclasses import replace

import numpy as np

from raypipe import seeds
from raypipe.config.table import TableConfig
from raypipe.events.latents import Events
from raypipe.fit.flow_stack import Sidebands
from raypipe.fit.flows import ConditionalFlow, FlowSet
from raypipe.search.case import Case, Judged, Settings, Template, classified
from raypipe.search.counting import background_percentiles, check_cuts
from raypipe.search.result import Tools
from raypipe.stats.continuum import SidebandFit
from raypipe.stats.sideband import fit_sidebands


def flow_set(case: Case, config: Settings, seed: int, device: str = "cpu") -> FlowSet:
    """What the flows of a pseudo-data set learn: its sidebands."""
    events, window, rows = case.data.events, config.window, learnt_rows(case, config)
    sidebands = Sidebands(
        events.latent[rows],
        events.mass[rows],
        seeds.integer(case.shared_seed if config.flow.share else seed, "flow"),
        events.posterior[rows] if config.flow.redraw else None,
    )
    masses = config.flow.mass_range(window.low, window.high)
    return FlowSet(sidebands, masses, config.flow, config.classifier.folds, device)


def learnt_rows(case: Case, config: Settings) -> np.ndarray:
    """The rows of the data that its flows learn from.

    With `flow.share` those of the injected signal are left out and the order is that of the event ids, so that all
    injections into one pseudo-data set ask for the very same flows.
    """
    rows = np.flatnonzero(case.side)
    if config.flow.share:
        rows = rows[~case.data.is_signal[rows]]
        rows = rows[np.argsort(case.data.events.event_id[rows], kind="stable")]
    return rows


def background_flow(
    case: Case, config: Settings, seed: int, tools: Tools
) -> tuple[ConditionalFlow, np.ndarray, str | None]:
    """Train the flows on the sidebands; also the fold of every sideband event, and the key if a stage keeps them."""
    side = np.flatnonzero(case.side)
    flow, key = flow_set(case, config, seed, tools.device).kept(tools.stage)
    # Of events that no flow knows.
    fold = seeds.generator(seed, "sideband-folds").integers(0, config.classifier.folds, len(side))
    fold[np.searchsorted(side, learnt_rows(case, config))] = flow.part
    return flow, fold, key


def build_template(
    flow: ConditionalFlow,
    fit: SidebandFit,
    sideband_masses: np.ndarray,
    sideband_home: np.ndarray,
    higgs: dict[str, Events],
    config: Settings | TableConfig,
    seed: int,
) -> Template:
    """Sample the flow in the signal region at masses of the fitted spectrum, and add the simulated Higgs (paper A),
    which a flow of the sidebands cannot know.
    ``sideband_masses``: (m,) GeV, of the data; ``sideband_home``: (m,) the fold whose flows do not know each event.
    """
    window, folds = config.window, config.classifier.folds
    continuum, error = fit.integral(window.sr_low, window.sr_high)
    rng = seeds.generator(seed, "template")
    shares = (config.flow.judged / folds, config.flow.oversampling * (folds - 1) / folds)
    judge, train = (max(1, round(continuum * share)) for share in shares)
    luminosity = 0.0 if not higgs else config.pseudodata.luminosity
    inside = [higgs[name].take(window.inside(higgs[name].mass)) for name in sorted(higgs)]
    resonant = [(events.latent, events.weight * luminosity, rng.integers(0, folds, len(events))) for events in inside]
    judged, training = [], []
    beside, side_home = (np.repeat(v, config.flow.sideband_draws) for v in (sideband_masses, sideband_home))
    sideband = np.empty((len(beside), flow.ensemble.features), np.float32)
    for fold in range(folds):
        one = flow.without(fold)
        drawn = one.sample(fit.sample(judge + train, window.sr_low, window.sr_high, rng), rng)
        judged.append(drawn[:judge])
        others = [(latent[home != fold], weight[home != fold]) for latent, weight, home in resonant]
        parts = [(drawn[judge:], np.full(train, continuum * (folds - 1) / folds / train)), *others]
        training.append((np.concatenate([p[0] for p in parts]), np.concatenate([p[1] for p in parts])))
        rows = side_home == fold
        sideband[rows] = one.sample(beside[rows], rng)
    latent = np.concatenate([*judged, *(r[0] for r in resonant)])
    weight = np.concatenate([np.full(judge * folds, continuum / (judge * folds)), *(r[1] for r in resonant)])
    home = np.concatenate([np.repeat(np.arange(folds), judge), *(r[2] for r in resonant)])
    known = latent, weight, np.arange(len(latent)) >= judge * folds, fit, continuum, error
    return Template(*known, home, tuple(training), sideband, np.asarray(sideband_home, np.int64))


def cathode(case: Case, config: Settings, seed: int, tools: Tools) -> Judged:
    """Flow on the sidebands, interpolated to the signal region, plus simulated Higgs; classifiers out of fold."""
    start = time.perf_counter()
    fit = fit_sidebands(case.data.events.mass, config.window, config.massfit)
    flow, fold, key = background_flow(case, config, seed, tools)
    fitted = time.perf_counter()
    judged = judged_by(flow, fold, case, fit, config, seed, tools)
    clock = {"flow": fitted - start, **judged.clock}
    return replace(judged, flow_state=None if key else flow.state(), flow_stage=key, clock=clock)


def judged_by(
    flow: ConditionalFlow, fold: np.ndarray, case: Case, fit: SidebandFit, config: Settings, seed: int, tools: Tools
) -> Judged:
    """Template of trained flows, and classifiers of the data against it; ``fold``: (m,) of every sideband event."""
    start = time.perf_counter()
    latent, mass = case.data.events.latent, case.data.events.mass
    template = build_template(flow, fit, mass[case.side], fold, case.higgs, config, seed)
    sampled = time.perf_counter()
    chosen = config.selection
    check_cuts(chosen.working_points, template, config.classifier.folds, by_sidebands=chosen.sideband_calibration)
    others = {"sideband_data": latent[case.side], "sideband_template": template.sideband}
    others["background"] = case.left.latent
    if case.signal is not None:
        others["signal"] = case.signal.latent
    scores = classified(latent[case.inside], template, others, config, seed, tools)
    if chosen.sideband_calibration:
        scores = [background_percentiles(s, template) for s in scores]
    return Judged(template, scores, clock={"sampling": sampled - start, "classifier": time.perf_counter() - sampled})


def without_higgs(case: Case, config: Settings, seed: int, tools: Tools) -> Judged:
    """`cathode` with a background of the flow's continuum alone: the Higgs itself is an anomaly then."""
    return cathode(replace(case, higgs={}), config, seed, tools)
