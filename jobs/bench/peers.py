"""Whole searches in the demo's latents against the script that a user would otherwise write, from public peers.

Same pseudo-data (configs/contrastive/demo.yaml). Ours is what a trial of a scan does, without Ray: ten flows (of the
sidebands without the injected signal, `flow.share`), template, trees, counts with their errors. The script: one flow of
zuko (NSF, or the affine MAF), four draws an expected event at masses of a fitted spectrum, simulated Higgs, and four of
scikit-learn's boosted trees in each of five folds; no calibration, no significance. One thread, CPU seconds. The SIC is
that where the true background passes at a working point, by one function for all. The settings of zuko's flows are the
best of two dozen tries by their loss. Their trees get bins: scikit-learn 1.9 bins weighted events slowly.

``raypipe embed`` makes the demo's events, encoder and latents once, in runs/bench/peers; that is not timed.
"""

from __future__ import annotations

import math
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import zuko
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.model_selection import StratifiedKFold
from sklearn.preprocessing import KBinsDiscretizer
from threadpoolctl import threadpool_limits

from bench.base import CPU, SEED, Measurement, compared, threads, timed
from bench.flow import best_loss
from raypipe import seeds
from raypipe.config import Config
from raypipe.config.load import load_config
from raypipe.fit.classifier import Background, Contest, ensemble_scores
from raypipe.search.base import search_of
from raypipe.search.case import Case, Judged, Tables
from raypipe.search.cathode import flow_set
from raypipe.search.contrastive import draw_case, evaluated, judge, trial_seed
from raypipe.search.counting import background_percentiles
from raypipe.search.evaluate import true_background
from raypipe.search.pilots import made_up_tables
from raypipe.search.result import ALONE, Tools, Trial
from raypipe.stats.roc import bootstrapped_efficiency, replicated_sic, sic

INSTANCES, HELD_OUT = 4, 2
"""Pseudo-data sets of a signal; flows of each set that zuko trains on the same events."""
EPOCHS, SHAPE, RATE, BATCH = {"NSF": 10, "MAF": 20}, {"transforms": 3, "hidden_features": (64, 64)}, 1e-2, 512
DRAWS, FOLDS, MEMBERS = 4, 5, 4
in_bins = partial(KBinsDiscretizer, 254, encode="ordinal")  # as many as the trees would make of their own
trees = partial(HistGradientBoostingClassifier, max_depth=3, early_stopping=True)
"""What stops one early is drawn, so that members differ."""
Outcome = tuple[dict[str, float], list[tuple[float, np.ndarray]]]
"""CPU seconds of a search by part; of each working point SIC and its replicas (`Case.drawn`)."""


def sensitivity(case: Case, config: Config, of: Callable[[str], np.ndarray]) -> list[tuple[float, np.ndarray]]:
    """SIC and replicas where such shares of the true background pass; scores ``of`` the ``data`` in the signal region
    and of ``background`` and ``signal`` left over, small is signal."""
    truth = case.data.is_signal[case.inside]
    background, weights = true_background(case, of)
    signal, order = np.r_[of("data")[truth], of("signal")], np.argsort(background)
    passing = np.cumsum(weights[order]) / weights.sum()
    found = []
    for point in config.selection.working_points:
        cut = np.r_[-np.inf, background[order]][np.searchsorted(passing, point, side="right")]
        kept, seen = background <= cut, signal <= cut
        drawn = bootstrapped_efficiency(seen, case.drawn["signal"])
        drawn = replicated_sic(drawn, bootstrapped_efficiency(kept, case.drawn["background"], weights))
        found.append((sic(float(seen.mean()), float(weights[kept].sum() / weights.sum())), drawn))
    return found


def zuko_flow(kind: str, x: torch.Tensor, c: torch.Tensor, held_out: np.ndarray, epochs: int) -> tuple[Any, np.ndarray]:
    """Train a flow as its manual has it, with a cosine schedule; that of the best epoch, and CPU seconds so far and the
    loss on ``held_out`` (n,) after each epoch."""
    torch.manual_seed(SEED)
    flow = getattr(zuko.flows, kind)(x.shape[1], c.shape[1], **SHAPE)
    train, stream, start = np.flatnonzero(~held_out), np.random.default_rng(SEED), CPU()
    steps = max(1, len(train) // BATCH)
    optimiser = torch.optim.Adam(flow.parameters(), lr=RATE)
    schedule, told = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, epochs * steps), []
    for _ in range(epochs):
        for rows in np.array_split(stream.permutation(train), steps):
            loss = -flow(c[rows]).log_prob(x[rows]).mean()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
        with torch.no_grad():
            told.append((CPU() - start, float(-flow(c[held_out]).log_prob(x[held_out]).mean())))
        if told[-1][1] == min(loss for _, loss in told):
            best = {name: value.clone() for name, value in flow.state_dict().items()}
    flow.load_state_dict(best)
    return flow, np.array(told)


def context(config: Config, masses: np.ndarray) -> torch.Tensor:
    """Masses (n,) GeV as our flows see them, which served zuko's best too."""
    low, high = config.flow.mass_range(config.window.low, config.window.high)
    return torch.as_tensor(2 * (masses - low) / (high - low) - 1, dtype=torch.float32)[:, None]


def continuum_masses(masses: np.ndarray, config: Config, rng: np.random.Generator) -> np.ndarray:
    """`DRAWS` masses (n,) GeV for each event that the sidebands expect in the signal region: a straight-forward fit."""
    window, step = config.window, 0.01
    counts, edges = np.histogram(masses, np.arange(window.low, window.high + 1))
    grid, centres = np.arange(window.sr_low, window.sr_high, step) + step / 2, (edges[1:] + edges[:-1]) / 2
    used = ~window.inside(centres) & (counts > 0)
    parabola = np.polyfit(centres[used] - 125, np.log(counts[used]), 2, w=np.sqrt(counts[used]))
    density = np.exp(np.polyval(parabola, grid - 125))
    return rng.choice(grid, round(DRAWS * density.sum() * step), p=density / density.sum())


def script(case: Case, config: Config, kind: str, epochs: int, rounds: int) -> Outcome:
    """The whole search without raypipe."""
    rng, events, start = np.random.default_rng(SEED), case.data.events, CPU()
    latent, mass, data = events.latent[case.side], events.mass[case.side], events.latent[case.inside]
    mean, std, held_out = latent.mean(0), latent.std(0), rng.random(len(latent)) < 0.2
    flow = zuko_flow(kind, torch.as_tensor((latent - mean) / std), context(config, mass), held_out, epochs)[0]
    trained = CPU()
    with torch.no_grad():
        drawn = flow(context(config, continuum_masses(mass, config, rng))).sample().numpy() * std + mean
    higgs = [one.take(config.window.inside(one.mass)) for one in case.higgs.values()]
    weights = [np.full(len(drawn), 1 / DRAWS), *(one.weight * config.pseudodata.luminosity for one in higgs)]
    x, weight = np.concatenate([data, drawn, *(one.latent for one in higgs)]), np.r_[np.ones(len(data)), *weights]
    bins, label = in_bins().fit(x), np.arange(len(x)) < len(data)
    sets = {"data": x, "background": case.left.latent, "signal": case.signal.latent}
    sets = {name: bins.transform(values) for name, values in sets.items()}
    scores = {name: np.empty(len(values)) for name, values in sets.items()}
    home = {name: rng.integers(0, FOLDS, len(values)) for name, values in sets.items()}  # what no fold trains on: any
    for fold, (train, test) in enumerate(StratifiedKFold(FOLDS, shuffle=True, random_state=SEED).split(x, label)):
        models = [trees(max_iter=rounds, random_state=member) for member in range(MEMBERS)]
        for model in models:
            model.fit(sets["data"][train], label[train], weight[train])
        for name, values in sets.items():
            rows = test if name == "data" else np.flatnonzero(home[name] == fold)
            scores[name][rows] = -np.mean([model.decision_function(values[rows]) for model in models], 0)
    scores["data"] = scores["data"][: len(data)]
    seconds = {"flow": trained - start, "sampling and trees": CPU() - trained}
    return seconds, sensitivity(case, config, scores.__getitem__)


def trees_alone(case: Case, judged: Judged, config: Config, seed: int, rounds: int) -> Iterator[Outcome]:
    """Our trees and scikit-learn's on our template: the same folds, training events and scored sets."""
    template, latent = judged.template, case.data.events.latent

    def theirs(contest: Contest, parts: Iterable[tuple[int, int]]) -> Iterator[dict[str, np.ndarray]]:
        bins = in_bins().fit(template.latent)
        sets = {name: bins.transform(values) for name, values in contest.sets.items()}
        for fold, member in parts:
            x, *labels = contest.training(fold)
            model = trees(max_iter=rounds, random_state=member).fit(bins.transform(x), *labels)
            yield {name: model.decision_function(sets[name][contest.rows(name, fold)]) for name in sets}

    background = Background(template.latent, template.weight, template.training)
    others = {"sideband_data": latent[case.side], "sideband_template": template.sideband}
    others |= {"background": case.left.latent, "signal": case.signal.latent}
    for mapper in (map, theirs):
        how = {"seed": seeds.integer(seed, "classifier"), "others": others, "homes": template.homes, "mapper": mapper}
        work = partial(ensemble_scores, latent[case.inside], background, config.classifier, **how)
        seconds, found = timed(work, CPU)
        scores = background_percentiles(found[0], template)
        yield {"trees": seconds}, sensitivity(case, config, scores.of)


def flow_row(kind: str, fitted: list[tuple[Any, ...]], config: Config, epochs: int) -> Measurement:
    """A flow of ours and zuko's on the same events and held-out parts: CPU seconds, of zuko's until our loss or in all.
    ``fitted``: those of each instance before and after training, and the CPU seconds of all."""
    rows = []
    for learnt, flow, took in fitted:
        x = torch.as_tensor((learnt.sidebands.latents - flow.mean) / flow.std).float()
        c = context(config, learnt.sidebands.masses)
        for member in range(HELD_OUT):
            goal, held_out = best_loss(flow, x, c, member), np.isin(flow.part, flow.left_out[member])
            seconds, losses = zuko_flow(kind, x, c, held_out, epochs)[1].T
            until = float(next(iter(seconds[losses <= goal]), seconds[-1]))
            rows.append((took / config.flow.members, until, goal, float(losses.min())))
    ours, theirs, goal, loss = map(list, zip(*rows, strict=True))
    short = np.subtract(loss, goal)
    above = {"mean": float(short.mean()), "error": float(short.std(ddof=1) / math.sqrt(len(short)))}
    meaning = f"speed-up ({(short <= 0).sum()} of {len(short)} of theirs reach our loss)"
    name, detail = f"peers: one of our stacked flows against zuko's {kind}", {"nll_ours": goal, "nll_theirs": loss}
    return compared(name, ours, theirs, unit="CPU s", meaning=meaning, **detail, nll_theirs_above_ours=above)


def _told(values: np.ndarray, replicas: np.ndarray) -> dict[str, float]:
    """Mean of cases (n,); its error from the simulated events, by replicas (n, r), and from the spread of the cases."""
    spread = float(values.std(ddof=1) / math.sqrt(len(values))) if len(values) > 1 else 0.0
    return {"mean": float(values.mean()), "error_events": float(replicas.mean(0).std()), "error_cases": spread}


def against(name: str, signals: list[str], pairs: list[tuple[Outcome, Outcome]], config: Config) -> list[Measurement]:
    """CPU seconds, and SIC at each working point; of both sides and of their difference, of all and by signal."""
    sides, rows, told = list(zip(*pairs, strict=True)), [], {}
    times = [[sum(seconds.values()) for seconds, _ in side] for side in sides]
    parts = [{part: float(np.mean([seconds[part] for seconds, _ in side])) for part in side[0][0]} for side in sides]
    groups = {"all": np.ones(len(pairs), bool)} | {s: np.array(signals) == s for s in dict.fromkeys(signals)}
    for k, point in enumerate(config.selection.working_points):
        values, drawn = (np.array([[found[k][i] for _, found in side] for side in sides]) for i in (0, 1))
        three = {"ours": (values[0], drawn[0]), "theirs": (values[1], drawn[1])}
        three["difference"] = values[0] - values[1], drawn[0] - drawn[1]
        told[f"{point:g}"] = {g: {side: _told(v[m], d[m]) for side, (v, d) in three.items()} for g, m in groups.items()}
        how = {"unit": "SIC", "meaning": "SIC ours / SIC theirs", "sic": told[f"{point:g}"]}
        rows.append(compared(f"{name}: SIC at {point:.1%}", *values.tolist(), **how))
    return [compared(name, *times, unit="CPU s", parts_ours=parts[0], parts_theirs=parts[1], sic=told), *rows]


def demo(smoke: bool) -> tuple[Config, Tables]:
    """The configuration and its latents; for ``smoke`` made up and tiny."""
    root = Path(__file__).parents[2]
    path, folder = root / "configs" / "contrastive" / "demo.yaml", root / "runs" / "bench" / "peers"
    if smoke:
        small = ["flow.epochs=2", "flow.judged=4", "flow.sideband_draws=1", "flow.batch_size=64", "classifier.rounds=5"]
        config = load_config(path, [*small, "selection.working_points=[0.1]", "scan.signals=[wn_150]"])
        return config, made_up_tables(config, dict.fromkeys(config.pseudodata.background, 5.0) | {"yy": 750.0}, 1.0)
    command = [sys.executable, "-m", "raypipe.cli", "embed", "--config", str(path), "--output", str(folder)]
    subprocess.run(command, check=True)
    return (config := load_config(path)), next(iter(search_of(config).inputs("id", folder, ALONE)))


def measure(config: Config, tables: Tables, instances: int, epochs: dict[str, int], rounds: int) -> list[Measurement]:
    """All rows; the flows of an instance serve all its signals, and count in each of these searches."""
    signals, fitted, alone, scripts = config.scan.signals, [], [], {kind: [] for kind in epochs}
    for trial in (Trial(signal, config.scan.strengths[0], k) for k in range(instances) for signal in signals):
        case, seed = draw_case(tables, config, trial), trial_seed(config, trial)
        if trial.signal == signals[0]:
            learnt = flow_set(case, config, seed)
            took, flow = timed(learnt.fit, CPU)
            fitted.append((learnt, flow, took))
            tools = Tools(stage=partial(lambda state, *_: state, flow.state()))
        judging, judged = timed(partial(judge, trial.method, case, config, seed, tools), CPU)
        counting, _ = timed(partial(evaluated, tables, case, judged, config), CPU)
        own = {"flow": took, "sampling and trees": judging + counting}, sensitivity(case, config, judged.scores[0].of)
        for kind, number in epochs.items():
            scripts[kind].append((own, script(case, config, kind, number, rounds)))
        alone.append(tuple(trees_alone(case, judged, config, seed, rounds)))
    of, rows = signals * instances, []
    for kind, pairs in scripts.items():
        rows += against(f"peers: whole search against zuko's {kind} and scikit-learn", of, pairs, config)
    rows += [flow_row(kind, fitted, config, number) for kind, number in epochs.items()]
    return rows + against("peers: trees against scikit-learn's", of, alone, config)


def run(smoke: bool) -> list[Measurement]:
    """Both signals of the demo at its strength."""
    with threads(1), threadpool_limits(1):
        tiny = measure(*demo(True), 1, dict.fromkeys(EPOCHS, 1), 5)  # and with it all imports
        return tiny if smoke else measure(*demo(False), INSTANCES, EPOCHS, 100)
