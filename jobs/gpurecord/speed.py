"""How fast is a GPU at the three trainings: encoder, flows of many pseudo-data sets, many small networks.

Each is measured against the same work done the plain way on the same card, in the same run, after a warm-up.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from itertools import islice
from typing import Any

import numpy as np
import torch
from bench.encoder import PlainTraining
from bench.ensemble import toy_samples, train_one
from bench.samples import arrays
from torch.utils.flop_counter import FlopCounterMode

from gpurecord.correctness import WINDOW, sidebands
from raypipe.config import Embedding, Flow
from raypipe.config.multilepton import Networks
from raypipe.fit.encoder import EncoderPlan, EncoderTraining, build_encoder, rank_batches, wrapped
from raypipe.fit.flows import FlowTraining
from raypipe.fit.stacked import LabelledSample, Network, ensemble_scores, train_stack
from raypipe.stats.comparison import mean_loss

SEED = 20_270
Keep = Callable[[dict[str, Any]], None]


def wait(device: str) -> None:
    """Until the device has done what it was given."""
    if device != "cpu":
        torch.cuda.synchronize()


def clocked(work: Callable[[], Any], device: str) -> float:
    """Wall seconds of one call, the device's work included."""
    wait(device)
    start = time.perf_counter()
    work()
    wait(device)
    return time.perf_counter() - start


def matmul_peak(device: str, size: int, repeats: int = 20) -> float:
    """Largest rate (FLOP/s) of a square bfloat16 matrix product on random data, of three tries."""
    a, b = (torch.randn(size, size, device=device, dtype=torch.bfloat16) for _ in range(2))
    a @ b

    def products() -> None:
        for _ in range(repeats):
            a @ b

    return 2 * size**3 * repeats / min(clocked(products, device) for _ in range(3))


def encoder(device: str, tiny: bool, keep: Keep) -> dict[str, Any]:
    """The training step at paper size: bfloat16 and compiled, against plain eager single precision."""
    small = {"width": 16, "heads": 2, "particle_blocks": 1, "class_blocks": 1, "pair_width": 8} if tiny else {}
    batch, steps = (50, 2) if tiny else (8192, 50)
    config = Embedding(
        samples=["yy"], encoder=small, batch_size=batch, steps_per_epoch=steps, precision="bf16", compile=not tiny
    )
    inputs = arrays(12 * batch)
    plan = EncoderPlan.of(inputs, config, SEED)
    inputs = inputs.on(device)
    bare = build_encoder(config, plan.scales, SEED).to(device)
    ours = EncoderTraining(wrapped(bare, config, device), config, device)
    plain = PlainTraining(config, plan, device)
    plain.model.train()
    stream = rank_batches(inputs, plan.train, range(10 * steps), config)
    some = list(islice(stream, steps))
    flops = _flops(plain, some[0])
    record: dict[str, Any] = {
        "parameters": sum(p.numel() for p in bare.parameters()),
        "batch": batch,
        "flop_per_event": flops / batch,
        "bf16_matmul_peak_flops": matmul_peak(device, 256 if tiny else 8192),
    }
    record["compile_seconds"] = clocked(lambda: ours.train_epoch(some), device)
    keep(record)
    few = max(2, steps // 5)
    plain_seconds = [clocked(lambda: [plain.step(b) for b in some[:few]], device) / few for _ in range(3)]
    # Ours draws its batches while it trains, as a training does.
    our_seconds = [clocked(lambda: ours.train_epoch(islice(stream, steps)), device) / steps for _ in range(5)]
    resident = clocked(lambda: ours.train_epoch(some), device) / steps
    rates = [batch / float(np.median(t)) for t in (our_seconds, plain_seconds)]
    record |= {
        "events_per_second": rates[0],
        "plain_events_per_second": rates[1],
        "speed_up": rates[0] / rates[1],
        "seconds_per_step": our_seconds,
        "plain_seconds_per_step": plain_seconds,
        "seconds_per_step_batches_at_hand": resident,
        "share_of_peak": rates[0] * record["flop_per_event"] / record["bf16_matmul_peak_flops"],
    }
    keep(record)
    if record["share_of_peak"] < 0.4 and device != "cpu":
        record["profile"] = _profile(ours, some[:10])
    return record


def _flops(plain: PlainTraining, batch: dict[str, Any]) -> float:
    """Floating-point operations of the matrix products of one training step, forwards and backwards."""
    with FlopCounterMode(display=False) as counter:
        plain.step(batch)
    return float(counter.get_total_flops())


def _profile(training: EncoderTraining, batches: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The kernels that take most of the time of a step."""
    from torch.profiler import ProfilerActivity, profile

    training.config = training.config.model_copy(update={"steps_per_epoch": len(batches)})
    with profile(activities=[ProfilerActivity.CUDA, ProfilerActivity.CPU]) as seen:
        training.train_epoch(batches)
        torch.cuda.synchronize()
    # Operators and graphs only hold the kernels that they launch.
    holders = ("aten::", "## Call")
    rows = [e for e in seen.key_averages() if e.self_device_time_total > 0 and not e.key.startswith(holders)]
    total = sum(e.self_device_time_total for e in rows)
    rows.sort(key=lambda e: -e.self_device_time_total)
    return [
        {
            "kernel": e.key[:100],
            "calls_per_step": e.count / len(batches),
            "microseconds_per_step": e.self_device_time_total / len(batches),
            "share": e.self_device_time_total / total,
        }
        for e in rows[:25]
    ]


def flows(device: str, tiny: bool, keep: Keep) -> dict[str, Any]:
    """Ten pseudo-data sets of ten flows each as one stack, plain and compiled, against one flow after another.

    Rates are those of the epochs after the first, which also waits for kernels and for the compiler.
    """
    sets, events, batch, epochs, alone = (2, 600, 100, 2, 1) if tiny else (10, 24_000, 2048, 5, 2)
    size = {"layers": 2, "hidden": 8, "blocks": 1, "bins": 4} if tiny else {}
    config = Flow(members=10, leave_out=2, mixing="rotate", epochs=epochs, batch_size=batch, **size)
    data = [sidebands(events, number) for number in range(sets)]
    record: dict[str, Any] = {
        "sets": sets,
        "members": 10,
        "events": events,
        "epochs": epochs,
        "batch": batch,
        "layers": config.layers,
        "hidden": config.hidden,
        "bins": config.bins,
    }
    first: list[tuple[int, int]] = [(0, m) for m in range(alone)]
    ways = {"one by one": [[member] for member in first], "stack": [None], "compiled stack": [None]}
    for way, trainings in ways.items():
        found = []
        how = config.model_copy(update={"compile": way.startswith("compiled")})
        for members in trainings:
            training = FlowTraining(data, WINDOW, how, device=device, members=members)
            times = [clocked(training.run_epoch, device) for _ in range(epochs)]
            count = 10 * sets if members is None else 1
            stacks = zip(training.places, training.stacks, strict=True)
            judged = {m: float(x) for at, stack in stacks for m, x in zip(at.tolist(), stack.judge(), strict=True)}
            losses = [judged[m] for _, m in (members or first)]
            found.append((times[0], float(np.median(times[1:])) / count, losses))
        per_flow = float(np.mean([seconds for _, seconds, _ in found]))
        record[way] = {
            "first_epoch_seconds": [start for start, _, _ in found],
            "seconds_per_epoch_and_flow": per_flow,
            "validation": [loss for _, _, losses in found for loss in losses[:alone]],
        }
        record[way]["speed_up"] = record["one by one"]["seconds_per_epoch_and_flow"] / per_flow
        keep(record)
    losses = [np.array(record[way]["validation"]) for way in ways]
    record["largest_validation_difference"] = float(max(np.abs(other - losses[0]).max() for other in losses[1:]))
    return record


def networks(device: str, tiny: bool, keep: Keep) -> dict[str, Any]:
    """A thousand 3 x 50 networks at paper B's 20 epochs as one stack, both losses, against one after another."""
    many, events, epochs = (20, 100, 1) if tiny else (1000, 2500, 20)
    config = Networks(epochs=epochs)
    samples = toy_samples(max(1, many // config.members), events)
    keys = [Network(k % len(samples), ("gpu", k)) for k in range(many)]
    record: dict[str, Any] = {"networks": many, "events": 2 * events, "epochs": epochs, "batch": config.batch_size}
    train_stack(
        samples[:1], [Network(0, ("warm", 0))], config.model_copy(update={"epochs": 1}), "mlc", SEED, device=device
    )
    for loss in ("mlc", "bce"):
        trained = []
        took = clocked(
            lambda loss=loss, trained=trained: trained.append(
                train_stack(samples, keys, config, loss, SEED, device=device)
            ),
            device,
        )
        single = train_one(samples[0], ("gpu", 0), config, loss, SEED)
        pair = [_loss_of(stack, samples[0], loss) for stack in (trained[0].take([0]), single)]
        record[loss] = {
            "seconds": took,
            "networks_per_minute": 60 * many / took,
            "loss_stacked": pair[0],
            "loss_one_on_the_cpu": pair[1],
            "loss_difference": abs(pair[0] - pair[1]),
        }
        keep(record)
    return record


def _loss_of(stack: Any, sample: LabelledSample, loss: str) -> float:
    score = ensemble_scores(stack, sample.features, loss)
    return float(mean_loss(score, sample.is_data, sample.weights, loss))
