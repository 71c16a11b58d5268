"""`raypipe classify`: the classifier ensemble of the search between any two tables."""

import contextlib
from dataclasses import replace
from pathlib import Path
from typing import Any

from raypipe.cluster.runtime import ray_session
from raypipe.cluster.tasks import counted, spread
from raypipe.cluster.trees import engine_here, tree_trainer
from raypipe.config import Resources
from raypipe.errors import UserError
from raypipe.events.table import write_table
from raypipe.files import check_file_writable, write_json
from raypipe.fit.classify import classify, contest_of
from raypipe.models.bdt import train_here
from raypipe.progress import console, progress_bar
from raypipe.search.classify import Request, WeakSearch


def run(request: Request, output: Path, resources: Resources) -> dict[str, Any]:
    """Train, score, and write ``output`` (Parquet) with a JSON summary beside it, which is returned.

    Unreadable or too small tables, columns that do not fit together, and no place for the workers are `UserError`.
    """
    if check_file_writable(output).suffix == ".json":
        raise UserError(f"{output}: the scores are Parquet, and {output} is their summary: name a .parquet file")
    check_file_writable(output.with_suffix(".json"))
    with contextlib.ExitStack() as stack:
        mapper, train = map, train_here  # the fits side by side, or one after another by ``request.workers``
        if request.workers is None:
            mapper = stack.enter_context(spread(resources))
        else:
            stack.enter_context(ray_session(resources))
            train = tree_trainer(request.classifier, request.workers, resources, output.parent)
        asked = WeakSearch(request)
        features = ", ".join(map(str, asked.features))
        for line in (f"features: {features}; truth: {asked.label or 'none'}", *asked.notes):
            console.print(line, highlight=False, soft_wrap=line in asked.notes)
        contest = contest_of(*asked.matrices, request.classifier, seed=request.seed, **asked.weights)
        with progress_bar("classify", len(contest.parts())) as bar:
            scores = classify(replace(contest, train=train), **asked.weights, mapper=counted(mapper, bar))
    write_table(asked.scored(scores), output)
    summary = asked.summary(scores) | {"output": str(output)}
    summary["classifier"]["engine"] = engine_here(request.classifier.engine)
    write_json(output.with_suffix(".json"), summary)
    return summary
