"""Two workers on half batches are one worker on the whole batch: loss, gradients and training."""

from __future__ import annotations

import multiprocessing
import socket

import numpy as np
import pytest
import torch
import torch.distributed as dist

from raypipe.config import Embedding, Encoder
from raypipe.fit.encoder import EncoderInputs, EncoderPlan, EncoderTraining, build_encoder, fit_encoder
from tests.models.test_encoder import events

CONFIG = Embedding(
    samples=["any"],
    encoder=Encoder(width=16, heads=2, particle_blocks=1, class_blocks=1, pair_width=8, dropout=0.0, layer_scale=0.5),
    batch_size=32,
    steps_per_epoch=4,
    epochs=3,
    warmup_epochs=1,
    learning_rate=1e-3,
)


def inputs(n: int = 400) -> EncoderInputs:
    objects, event = events(n)
    group = np.arange(n) % 4 - 1
    scaled = objects.numpy() * (1 + 0.5 * group[:, None, None]).astype(np.float32)
    return EncoderInputs(np.arange(n), scaled, event.numpy(), group)


def slice_of(batch: dict, rank: int, size: int) -> dict:
    share = len(batch["group"]) // size
    return {k: v[rank * share : (rank + 1) * share] for k, v in batch.items()}


def one_step(rank: int, size: int) -> tuple[float, torch.Tensor]:
    """Global loss and the flattened parameters after two optimiser steps, from this worker's slice."""
    data = inputs()
    plan = EncoderPlan.of(data, CONFIG, 5)
    model: torch.nn.Module = build_encoder(CONFIG, plan.scales, 5).double()
    if size > 1:
        model = torch.nn.parallel.DistributedDataParallel(model)
    training = EncoderTraining(model, CONFIG)
    losses = []
    for step in range(2):
        batch = slice_of(data.batch(plan.train.batch(step), plan.train.noise(step, 6)), rank, size)
        batch = {k: v.astype(np.float64) if v.dtype == np.float32 else v for k, v in batch.items()}
        loss, _ = training.loss(batch)
        training.optimiser.zero_grad()
        loss.backward()
        training.optimiser.step()
        losses.append(float(training.workers.total(loss) / size))
    flat = torch.cat([p.detach().flatten() for p in training.encoder.parameters()])
    return losses[-1], flat


def worker(rank: int, port: int, queue) -> None:
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
    loss, flat = one_step(rank, 2)
    queue.put((rank, loss, flat.numpy()))
    dist.barrier()
    dist.destroy_process_group()


def test_two_gloo_workers_equal_one():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    processes = [context.Process(target=worker, args=(rank, port, queue)) for rank in range(2)]
    for process in processes:
        process.start()
    results = [queue.get(timeout=90) for _ in processes]
    for process in processes:
        process.join(30)
        assert process.exitcode == 0
    loss, flat = one_step(0, 1)
    for _, other_loss, other in results:
        assert other_loss == pytest.approx(loss, rel=1e-10)
        # Adam divides by the gradient's size: any missing part of the gradient would show at full size.
        np.testing.assert_allclose(other, flat.numpy(), rtol=1e-6, atol=1e-9)


def test_resuming_from_a_state_continues_bit_by_bit(tmp_path):
    data = inputs()
    plan = EncoderPlan.of(data, CONFIG, 5)

    def epoch(training: EncoderTraining) -> None:
        start = training.epoch * CONFIG.steps_per_epoch
        steps = range(start, start + CONFIG.steps_per_epoch)
        train = training.train_epoch(data.batch(plan.train.batch(s), plan.train.noise(s, 6)) for s in steps)
        valid = training.validate([data.batch(plan.validation.batch(0), plan.validation.noise(0, 6))])
        training.finish_epoch(train, valid)

    straight = EncoderTraining(build_encoder(CONFIG, plan.scales, 5), CONFIG)
    for _ in range(3):
        epoch(straight)
    first = EncoderTraining(build_encoder(CONFIG, plan.scales, 5), CONFIG)
    epoch(first)
    torch.save(first.state(), tmp_path / "state.pt")
    second = EncoderTraining(build_encoder(CONFIG, plan.scales, 99), CONFIG)
    second.load_state(torch.load(tmp_path / "state.pt", weights_only=True))
    epoch(second)
    epoch(second)
    assert second.finished
    for a, b in zip(straight.encoder.parameters(), second.encoder.parameters(), strict=True):
        assert torch.equal(a, b)
    assert straight.history == second.history


def test_training_learns_and_stops_early():
    data = inputs(800)
    config = CONFIG.model_copy(update={"epochs": 12, "steps_per_epoch": 10, "patience": 3})
    encoder, history = fit_encoder(data, config, 5)
    assert history[-1]["contrastive"] < history[0]["contrastive"] - 0.1
    rates = [r["learning_rate"] for r in history]
    assert max(rates) == pytest.approx(config.learning_rate)
    again, _ = fit_encoder(data, config, 5)
    for a, b in zip(encoder.parameters(), again.parameters(), strict=True):
        assert torch.equal(a, b)
    hopeless = config.model_copy(update={"learning_rate": 1e-12, "learning_rate_floor": 0.0, "warmup_epochs": 0})
    assert len(fit_encoder(data, hopeless, 5)[1]) < 12
