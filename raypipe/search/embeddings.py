"""The four ways to train the encoder (paper C, section IV.1), and the nine raw features beside them.

A representation is what a classifier sees: `id`, `background`, `raw`, `ip:<sample>` (an encoder that never saw this
mass point), `ep:<group>` (this family), or `id~<world>`: `id` of events from another world (`raypipe.events.worlds`).
"""

from collections.abc import Mapping, Sequence

import numpy as np

from raypipe import seeds
from raypipe.config import Config
from raypipe.errors import UserError
from raypipe.events.continuous import continuous_features
from raypipe.events.latents import Events
from raypipe.files import code_of, digest
from raypipe.search.result import NO_SIGNAL, Trial

WORLD = "~"  # Before the name of a world


def representation(trial: Trial, groups: Mapping[str, int]) -> str:
    """The representation that a trial uses; ``groups``: see `raypipe.search.diphoton.sample_groups`."""
    if trial.embedding in {"id", "background", "raw"} or WORLD in trial.embedding:
        return trial.embedding
    if trial.signal == NO_SIGNAL:
        raise UserError(f"embedding {trial.embedding!r} holds out the injected signal: it needs one")
    return f"ip:{trial.signal}" if trial.embedding == "ip" else f"ep:{groups[trial.signal]}"


def training_samples(name: str, samples: Sequence[str], groups: Mapping[str, int]) -> list[str]:
    """Which of ``samples`` the encoder of representation ``name`` may see; a hold-out must take something away."""
    kind, _, held = name.partition(":")
    sees = {"id": lambda s: True, "background": lambda s: groups[s] >= 0, "ip": lambda s: s != held}
    kept = [s for s in samples if sees.get(kind, lambda s: groups[s] != int(held))(s)]
    if ":" in name and len(kept) == len(samples):
        raise UserError(f"hold-out {name!r}: no such sample or family in embedding.samples ({', '.join(samples)})")
    return kept


def encoder_config(config: Config, name: str, member: int, groups: Mapping[str, int]) -> Config:
    """The configuration of one encoder of representation ``name``: its samples and beta, and a seed of its own."""
    samples = training_samples(name, config.embedding.samples, groups)
    seed = config.seed if member == 0 else seeds.integer(config.seed, "encoder", member)
    given = config.embedding
    beta = given.betas.get(name.partition(":")[0], given.beta)
    own = {"samples": samples, "beta": beta, "betas": {}}
    # All are trained on the same part: what one has not seen, such as the simulated Higgs, none has.
    own |= {"parts_seed": config.seed if given.parts_seed is None else given.parts_seed} if member else {}
    embedding = given.model_copy(update=own)
    return config.model_copy(update={"embedding": embedding, "seed": seed})


def encoder_key(config: Config, events: str) -> str:
    """Hash of what determines an encoder: its configuration, the key of the events, and the code."""
    embedding = config.embedding.model_dump(mode="json")
    code = code_of("raypipe.fit.encoder", "raypipe.events.diphoton")
    return digest({"embedding": embedding, "seed": config.seed, "events": events, "code": code})


def raw_representation(latents: Mapping[str, Mapping[str, Events]], seed: int) -> dict[str, dict[str, Events]]:
    """The same events with the nine features, made continuous and scaled by the SM events of the embedding split, in
    place of the latents."""

    def smooth(events: Events) -> np.ndarray:
        return continuous_features(events.features, events.event_id, seed)

    pool = np.concatenate([smooth(e) for e in latents["embedding"].values()])
    centre, width = pool.mean(0), pool.std(0) + 1e-9
    return {
        split: {name: e.seen_as((smooth(e) - centre) / width) for name, e in samples.items()}
        for split, samples in latents.items()
    }
