"""The contrastive search as trials of the scan engine: what determines a result, the grid, the function."""

from __future__ import annotations

import importlib.metadata
from typing import Any

from raypipe.cluster.attempt import Context
from raypipe.config import Config
from raypipe.files import code_digest
from raypipe.search.contrastive import Tables, search
from raypipe.search.result import Result, Trial, trial_grid

NUMERICS = ("numpy", "torch", "xgboost", "scipy", "iminuit")
"""Packages whose version can move a number."""


def trial_inputs(config: Config, latents: dict[str, Any]) -> dict[str, Any]:
    """What, besides the trial, determines a result: latents, code, packages and the sections that a search reads."""
    sections = ("seed", "window", "pseudodata", "massfit", "flow", "classifier", "selection")
    values = config.model_dump(mode="json")
    embedding = {k: values["embedding"][k] for k in ("name", "train_fraction", "validation_fraction")}
    code = code_digest("events", "models", "fit", "stats", "search")
    return {
        "latents": latents["digest"], "code": code, "embedding": embedding, **{k: values[k] for k in sections},
        "versions": {name: importlib.metadata.version(name) for name in NUMERICS},
    }  # fmt: skip


def plan_scan(config: Config, latents: dict[str, Any]) -> dict[str, Trial]:
    """All trials of the scan by their ledger key."""
    inputs = trial_inputs(config, latents)
    scan = config.scan
    trials = trial_grid(scan.signals, scan.strengths, scan.instances, scan.background_instances)
    return {trial.key(inputs): trial for trial in trials}


def run_contrastive(inputs: tuple[Tables, Config], trial: Trial, context: Context) -> Result:
    """One search of `raypipe.search.contrastive` as the scan engine calls it."""
    tables, config = inputs
    return search(tables, config, trial, threads=context.threads, device=context.device, stage=context.stage)
