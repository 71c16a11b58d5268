"""Is held-out data of a signal region like other data? Write tests/records/haxad_redraws.json.

``python -m tests.search.record_redraws CONFIG DRAWS [KEY=VALUE...]`` on a finished run of paper A's search whose
instances share no event: the continuum of each signal region is drawn anew from all simulated events, with the flows of
the instance.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

from raypipe.cluster.run import Run
from raypipe.config import load_config
from raypipe.files import write_json
from raypipe.search import case as cases
from raypipe.search import cathode, contrastive
from raypipe.search.contrastive import CONTINUUM
from raypipe.search.result import ALONE, NO_SIGNAL, Tools, Trial
from raypipe.stats.significance import mean_and_error
from tests.conftest import ROOT

POINT = 0.01


def redrawn(tables: Any, config: Any, trial: Trial, draw: int, tools: Tools) -> dict[str, float]:
    """Shares of the continuum that pass: of data, of all that is not drawn, of sidebands; draw 0 is the data itself."""
    events, rng = tables.search[CONTINUUM], np.random.default_rng([draw, trial.instance])
    one = contrastive.draw_case(tables, config, trial)
    data, region = one.data.events, np.flatnonzero(config.window.inside(events.mass))
    rows = np.flatnonzero(one.inside & np.isin(data.event_id, events.event_id))
    if draw:
        region = rng.permutation(region)
        mine, others = region[: len(rows)], region[len(rows) :]
        values = {name: getattr(data, name).copy() for name in ("latent", "mass", "event_id")}
        for name, column in values.items():
            column[rows] = getattr(events, name)[mine]
        one = replace(one, data=replace(one.data, events=replace(data, **values)))
    else:
        others = region[~np.isin(events.event_id[region], data.event_id)]

    def with_others(values: Any, template: Any, sets: Any, *rest: Any) -> Any:
        return cases.classified(values, template, sets | {"others": events.latent[others]}, *rest)

    seed = contrastive.trial_seed(config, trial) + draw
    with mock.patch.object(cathode, "classified", with_others):
        (scores,) = contrastive.judge("cathode", one, config, seed, tools).scores
    passed = one.passes(scores, POINT)[rows]
    found = {
        "data": passed,
        "others": scores.passes("others", POINT),
        "sidebands": scores.passes("sideband_data", POINT),
    }
    return {name: float(values.mean()) for name, values in found.items()}


def main(path: str, draws: int, *overrides: str) -> None:
    """The instances as they are, and ``draws`` times anew."""
    config = load_config(path, list(overrides))
    with Run(config) as run:
        (tables,) = run.search.inputs("id", Path(config.output), ALONE)
        tools = Tools(threads=1, stage=run.ledger().stage)
    rows = []
    for draw in range(draws + 1):
        for instance in range(config.scan.background_instances):
            found = redrawn(tables, config, Trial(NO_SIGNAL, 0.0, instance), draw, tools)
            rows.append({"draw": draw, "instance": instance} | found)
            print(rows[-1], flush=True)
    told: dict[str, Any] = {"configuration": path, "seed": config.seed, "working_point": POINT, "draws": draws}
    instances = sorted({r["instance"] for r in rows})
    for name, mine in (("first", [r for r in rows if not r["draw"]]), ("redrawn", [r for r in rows if r["draw"]])):
        told[name] = {"sets": len(mine)}
        for what, top, bottom in (("data", "data", "others"), ("region", "others", "sidebands")):
            # Draws of one instance share its sidebands and flows: it counts once.
            of = [np.mean([r[top] / r[bottom] - 1 for r in mine if r["instance"] == k]) for k in instances]
            mean, error = mean_and_error([float(value) for value in of])
            told[name][what] = {"mean": mean, "error": error}
    write_json(ROOT / "tests" / "records" / "haxad_redraws.json", told)
    print(told)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), *sys.argv[3:])
