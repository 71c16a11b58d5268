"""The latent space itself: maps and confusion matrices of the encoders of a run, written beside its report."""

from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from raypipe.cluster.inputs import read_inputs
from raypipe.cluster.run import Run
from raypipe.config import Config
from raypipe.events.schema import tensor_values
from raypipe.events.table import read_table
from raypipe.files import write_json
from raypipe.fit.batches import PARTS, dealt
from raypipe.progress import progress_bar
from raypipe.report.figures import confusion_figure, tsne_figure, tsne_map
from raypipe.report.style import save_figures
from raypipe.search.confusion import Confusion, balanced, supervised_confusion, tree_confusion
from raypipe.search.contrastive_search import encoder_config, encoder_folder
from raypipe.search.diphoton import LATENTS
from raypipe.search.result import NO_SIGNAL, Trial
from raypipe.simulate.processes import GROUPS

MAP_EVENTS = 250  # Events a group in a t-SNE map
SM = 0  # The group that stands for all of the SM
TREE_EVENTS = 4000  # Most events a group that the trees of the confusion matrices are trained on, and judged on


def families(groups: np.ndarray) -> np.ndarray:
    """Groups (n,) with all of the SM as one, the last in order."""
    return np.minimum(groups, SM)


def embedding_events(table: pa.Table, config: Config) -> tuple[pa.Table, np.ndarray]:
    """The embedding split of a latent table, sorted by id, and the part (train, validation, test) of every event."""
    kept = table.filter(pc.equal(table["split"].cast(pa.string()), "embedding"))
    kept = kept.take(np.argsort(kept["event_id"].to_numpy(), kind="stable"))
    return kept, dealt(kept["event_id"].to_numpy(), config.embedding, config.seed)


def latent_pictures(run: Run, supervised: bool = True) -> dict[str, Any]:
    """Make ``figures/tsne.svg``, ``figures/confusion.svg`` and ``latent.json``; returns the content of the last.

    t-SNE maps of every embedding of the scan (those that hold something out, for its first signal); confusion matrices
    of the first `id` encoder's latent space, of the nine features, and of a transformer trained with labels, between
    the SM as one class and the families of signals (paper C, figure 8: nine classes).
    """
    config = run.config
    trials = [Trial(config.scan.signals[0], 1.0, 0, e) for e in config.scan.embeddings if e != "raw"]
    trials.insert(0, Trial(NO_SIGNAL, 0.0, 0, "id"))
    run.make(trials)
    maps = {}
    for name in dict.fromkeys(map(run.search.need, trials)):
        table = read_table(run.folder / encoder_folder(name, 0) / LATENTS[0])
        own = encoder_config(config, name, 0)
        events, parts = embedding_events(table, own)
        labels = events["group"].to_numpy()
        rows = balanced(labels, np.flatnonzero(parts == PARTS.index("test")), MAP_EVENTS, config.seed, "map")
        maps[name] = tsne_map(tensor_values(events["latent"])[rows], config.seed), labels[rows]
        if name == "id":
            matrices = _trees(events, parts, run)
    if supervised:
        matrices["transformer with labels"] = _transformer(run)
    figures = {"tsne": tsne_figure(maps, GROUPS), "confusion": confusion_figure(matrices, GROUPS | {SM: "SM"})}
    paths = save_figures(figures, run.folder / "figures")
    record = {
        "figures": {name: str(path) for name, path in paths.items()},
        "confusion": {
            name: {"groups": list(c.groups), "matrix": c.matrix.tolist()}
            | {"mean_diagonal": c.diagonal, "sm_called_sm": float(c.matrix[-1, -1])}
            for name, c in matrices.items()
        },
    }
    write_json(run.folder / "latent.json", record)
    return record


def _trees(events: pa.Table, parts: np.ndarray, run: Run) -> dict[str, Confusion]:
    labels, seed, engine = families(events["group"].to_numpy()), run.config.seed, run.trees()
    places = {part: np.flatnonzero(parts == PARTS.index(part)) for part in ("train", "test")}
    train, test = (balanced(labels, rows, TREE_EVENTS, seed, part) for part, rows in places.items())
    return {
        title: tree_confusion(tensor_values(events[column]), labels, train, test, seed=seed, engine=engine)
        for title, column in (("trees on the latent space", "latent"), ("trees on nine features", "features"))
    }


def _transformer(run: Run) -> Confusion:
    config = run.config
    run.ray()
    inputs = read_inputs(config, run.folder / "events")
    inputs = replace(inputs, group=families(inputs.group))
    parts = dealt(inputs.event_id, config.embedding, config.seed)
    test = balanced(inputs.group, np.flatnonzero(parts == PARTS.index("test")), TREE_EVENTS, config.seed, "test")
    with progress_bar("supervised transformer", config.embedding.epochs) as bar:
        return supervised_confusion(
            inputs, config.embedding, test, seed=config.seed, on_epoch=lambda v: bar(1, f"cross-entropy {v:.3f}")
        )
