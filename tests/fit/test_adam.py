"""Our Adam against PyTorch's own, and what it saves."""

from __future__ import annotations

import subprocess
import sys

import torch

from raypipe.fit.training import CosineAdam


def test_same_bits_as_pytorch():
    """Forty steps down to a rate of zero: weights and rates of torch.optim.Adam under CosineAnnealingLR."""
    torch.manual_seed(3)
    start, target = torch.randn(5, 7), torch.randn(5, 7)
    ours, theirs = (torch.nn.Parameter(start.clone()) for _ in range(2))
    mine = CosineAdam([ours], 0.01, 40)
    optimiser = torch.optim.Adam([theirs], lr=0.01, fused=True)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, T_max=40)
    for _ in range(40):
        assert mine.rate == optimiser.param_groups[0]["lr"]
        for parameter in (ours, theirs):
            parameter.grad = None
            (parameter - target).pow(4).sum().backward()
        mine.step()
        optimiser.step()
        schedule.step()
    assert torch.equal(ours, theirs)
    assert not torch.equal(ours, start)
    assert mine.rate == 0


def test_a_fit_does_not_load_the_compiler():
    """It would cost every worker process a core second."""
    fit = (
        "import sys, numpy as np; from raypipe.config import Flow; from raypipe.fit.flows import FlowSet, Sidebands; "
        "r = np.random.default_rng(1); x = r.standard_normal((400, 2)).astype(np.float32); "
        "events = Sidebands(x, r.uniform(105, 160, 400), 1); "
        "FlowSet(events, (105.0, 160.0), Flow(epochs=1, members=5)).fit(); "
        "assert 'torch._dynamo' not in sys.modules and 'sympy' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", fit], check=True)
