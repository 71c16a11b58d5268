"""Ray Train against the same training without Ray: equal with one worker, with two, and after a worker's death."""

from __future__ import annotations

import os
import shutil
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch

from raypipe.cluster import stages as embedding
from raypipe.cluster.inputs import event_source, read_inputs
from raypipe.cluster.train import encoder_key, load_encoder, train_autoencoder, train_encoder
from raypipe.config import Config
from raypipe.config.haxad import HaxadConfig
from raypipe.errors import UserError
from raypipe.events.continuous import continuous_features
from raypipe.events.schema import tensor_values
from raypipe.events.table import read_table, write_table
from raypipe.files import read_json
from raypipe.fit.batches import PARTS, parts_of
from raypipe.fit.encoder import EncoderInputs, fit_encoder
from raypipe.fit.vae import fit_vae
from raypipe.search.contrastive_search import Embedded
from tests.events.helpers import event_table

pytestmark = pytest.mark.ray
MANIFEST = {"key": "made up"}
GROUPS = {"yy": 0, "ggf": 1, "wn_150": -1}


def config(**embedding) -> Config:
    small = {
        "samples": list(GROUPS),
        "batch_size": 24,
        "steps_per_epoch": 5,
        "epochs": 4,
        "warmup_epochs": 1,
        "encoder": {"width": 16, "heads": 2, "particle_blocks": 1, "class_blocks": 1, "pair_width": 8, "dropout": 0.0},
    }
    return Config.model_validate(
        {
            "seed": 4,
            "simulate": {"samples": {name: {} for name in GROUPS}},
            "embedding": small | embedding,
            "pseudodata": {"background": ["yy", "ggf"]},
            "selection": {"working_points": [0.01]},
            "scan": {"signals": ["wn_150"], "strengths": [1.0]},
        }
    )


@pytest.fixture(scope="module")
def events(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("events")
    for k, (name, group) in enumerate(GROUPS.items()):
        table = event_table(300, sample=name, group=group, split="embedding", first=1000 * k)
        write_table(table, folder / "embedding" / f"{name}.parquet")
    return folder


@pytest.fixture(scope="module")
def reference(ray_local, events):
    """The training without Ray Train."""
    given = config()
    return fit_encoder(read_inputs(given, events), given.embedding, given.seed)


def assert_same(encoder: torch.nn.Module, reference: torch.nn.Module, **tolerance) -> None:
    for (name, a), b in zip(encoder.named_parameters(), reference.parameters(), strict=True):
        torch.testing.assert_close(a, b, msg=lambda m, name=name: f"{name}: {m}", **tolerance)


def trained(given: Config, events: Path, folder: Path, **how):
    """The encoder, which is trained if it is not there, and its record."""
    train_encoder(given, events, folder, MANIFEST, **how)
    return load_encoder(folder, encoder_key(given, MANIFEST["key"]))


def test_one_worker_is_the_plain_training_and_a_second_call_only_reads(ray_local, events, reference, tmp_path):
    seen = []
    encoder, record = trained(config(), events, tmp_path, on_epoch=seen.append)
    assert_same(encoder, reference[0], rtol=1e-5, atol=1e-6)
    assert [r["epoch"] for r in seen] == [0, 1, 2, 3]
    assert [r["loss"] for r in record["history"]] == pytest.approx([r["loss"] for r in reference[1]], rel=1e-5)
    assert not (tmp_path / "train").exists()

    began = time.monotonic()
    again, _ = trained(config(), events, tmp_path)
    assert time.monotonic() - began < 2
    assert_same(again, encoder, rtol=0, atol=0)
    # Another configuration, other events: not the same encoder.
    assert load_encoder(tmp_path, encoder_key(config(beta=0.5), MANIFEST["key"])) is None
    assert load_encoder(tmp_path, encoder_key(config(), "others")) is None


def test_two_workers_give_the_loss_of_the_global_batch(ray_local, events, tmp_path):
    given = config(epochs=2)
    _, history = fit_encoder(read_inputs(given, events), given.embedding, given.seed)
    two = given.model_copy(update={"resources": given.resources.model_copy(update={"train_workers": 2})})
    _, record = trained(two, events, tmp_path)
    assert [r["loss"] for r in record["history"]] == pytest.approx([r["loss"] for r in history], rel=1e-3)


def test_a_killed_worker_costs_an_epoch_and_changes_nothing(ray_local, events, tmp_path):
    # Streamed from mapped files, where the other tests hold the events in memory: the same batches.
    longer = config(epochs=5, steps_per_epoch=12)
    longer = longer.model_copy(update={"resources": longer.resources.model_copy(update={"resident_gib": 0.0})})
    plain, _ = fit_encoder(read_inputs(longer, events), longer.embedding, longer.seed)
    killed = threading.Event()

    def kill(record: dict) -> None:
        if record["epoch"] == 1 and not killed.is_set():
            workers = [
                p
                for p in psutil.Process().children(recursive=True)
                if any("RayTrainWorker" in part for part in p.cmdline())
            ]
            assert workers
            for worker in workers:
                os.kill(worker.pid, signal.SIGKILL)
            killed.set()

    encoder, record = trained(longer, events, tmp_path, on_epoch=kill)
    assert killed.is_set()
    assert [r["epoch"] for r in record["history"]] == list(range(5))
    assert_same(encoder, plain, rtol=1e-5, atol=1e-6)


def test_mapped_events_are_the_resident_ones(ray_local, events, tmp_path):
    given = config()
    resident, _ = event_source(given, events, tmp_path)
    assert resident.mapped is None
    none = given.model_copy(update={"resources": given.resources.model_copy(update={"resident_gib": 0.0})})
    mapped, _ = event_source(none, events, tmp_path)
    assert mapped.mapped is not None
    for name in EncoderInputs.__dataclass_fields__:
        assert isinstance(getattr(mapped.load(), name), np.memmap)
        np.testing.assert_array_equal(getattr(mapped.load(), name), getattr(resident.load(), name))


def test_latents_have_the_same_bits_whoever_makes_them_and_whoever_dies(ray_local, tmp_path, monkeypatch, capfd):
    """A float32 sum depends on the batch an event is in, so batches must not depend on who runs them."""
    folder = tmp_path / "events"
    for k, (name, group) in enumerate(GROUPS.items()):
        for split in ("embedding", "search"):
            first = 1000 * k + (0 if split == "embedding" else 10_000)
            write_table(
                event_table(300, sample=name, group=group, split=split, first=first), folder / split / f"{name}.parquet"
            )
    given = config(epochs=1)
    monkeypatch.setattr(embedding, "BATCH", 32)  # many chunks a file, the last one short
    train_encoder(given, folder, tmp_path / "encoder", MANIFEST)
    capfd.readouterr()

    def embedded(actors: int, on_rows: Callable[[int], None]) -> bytes:
        out = tmp_path / f"{actors}-{on_rows.__name__}"
        shutil.copytree(tmp_path / "encoder", out)
        monkeypatch.setattr(embedding, "total_cpus", lambda: actors)
        embedding.embed_events(Embedded(given, out.name), tmp_path, out, "made up", on_rows)
        assert read_table(out / "latents.parquet").num_rows == 6 * 300
        return (out / "latents.parquet").read_bytes()

    told: list[int] = []
    killed: list[int] = []

    def kill(rows: int) -> None:
        told.append(rows)
        end = time.monotonic() + 10
        while len(told) == 1 and not killed:
            assert time.monotonic() < end
            for worker in psutil.Process().children(recursive=True):
                if "MapBatches" in " ".join(worker.cmdline()):
                    os.kill(worker.pid, signal.SIGKILL)
                    killed.append(worker.pid)

    bits = embedded(1, told.append)
    assert sum(told) == 6 * 300
    assert embedded(2, told.append) == bits
    assert "core_worker" not in capfd.readouterr().err
    told.clear()
    assert embedded(2, kill) == bits
    assert killed
    assert sum(told) == 6 * 300


def test_what_cannot_be_trained_is_one_line(ray_local, events, tmp_path):
    with pytest.raises(UserError, match=r"group -1 has .* events in the train part"):
        train_encoder(config(batch_size=900), events, tmp_path, MANIFEST)
    given = config(batch_size=25)
    two = given.model_copy(update={"resources": given.resources.model_copy(update={"train_workers": 2})})
    with pytest.raises(UserError, match=r"batch_size = 25: must divide by resources\.train_workers = 2"):
        train_encoder(two, events, tmp_path, MANIFEST)
    absent = Config.model_validate(
        given.model_dump()
        | {
            "simulate": {"samples": {n: {} for n in [*GROUPS, "zp_400"]}},
            "embedding": given.embedding.model_dump() | {"samples": [*GROUPS, "zp_400"]},
        }
    )
    with pytest.raises(UserError, match=r"'zp_400' was not simulated \(present: ggf, wn_150, yy\)"):
        train_encoder(absent, events, tmp_path, MANIFEST)
    assert np.isfinite(read_inputs(config(), events).objects).all()


def test_the_autoencoder_is_the_plain_one(ray_local, events, tmp_path):
    given = HaxadConfig.model_validate(
        {
            "seed": 4,
            "simulate": {"samples": {name: {} for name in GROUPS}},
            "embedding": {"samples": ["yy", "ggf"], "hidden": [8], "epochs": 3, "batch_size": 50},
            "pseudodata": {"background": ["yy", "ggf"]},
            "selection": {"working_points": [0.05]},
            "scan": {"signals": ["wn_150"], "strengths": [2.0]},
        }
    )
    seen: list[dict] = []
    train_autoencoder(given, events, tmp_path, "made up", seen.append)
    record = read_json(tmp_path / "encoder.json")
    assert record == {"key": "made up", "embedding": given.embedding.model_dump(mode="json"), "history": seen}
    parts: dict[str, list[np.ndarray]] = {"train": [], "validation": []}
    for name in ("yy", "ggf"):
        table = read_table(events / "embedding" / f"{name}.parquet")
        ids = table["event_id"].to_numpy()
        part = parts_of(ids, 4, given.embedding.train_fraction, given.embedding.validation_fraction)
        values = continuous_features(tensor_values(table["features"]), ids, 4)
        for which, found in parts.items():
            found.append(values[part == PARTS.index(which)])
    sets = [np.concatenate([v[: min(map(len, found))] for v in found]) for found in parts.values()]
    plain, history = fit_vae(*sets, given.embedding, given.seed)
    assert [r["loss"] for r in history] == pytest.approx([r["loss"] for r in record["history"]], rel=1e-5)
    weights = torch.load(tmp_path / "vae.pt", weights_only=True)
    for name, value in plain.state_dict().items():
        torch.testing.assert_close(weights[name], value, rtol=1e-4, atol=1e-5)
    assert {path.name for path in tmp_path.iterdir()} == {"vae.pt", "encoder.json"}
    few = given.model_copy(update={"embedding": given.embedding.model_copy(update={"batch_size": 5000})})
    with pytest.raises(UserError, match=r"batch_size = 5000: only \d+ training"):
        train_autoencoder(few, events, tmp_path / "few", "made up")
