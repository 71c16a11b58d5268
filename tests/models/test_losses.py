"""The contrastive loss against a plain float64 transcription of the formula, and limits with known values."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from raypipe.models.losses import gaussian_kl, supervised_contrastive


def naive(projections: np.ndarray, labels: np.ndarray, temperature: float) -> float:
    """Mean over anchors with partners of paper C's first term, by explicit loops."""
    terms = []
    for i in range(len(labels)):
        partners = [j for j in range(len(labels)) if j != i and labels[j] == labels[i]]
        if not partners:
            continue
        others = [a for a in range(len(labels)) if a != i]
        total = math.log(sum(math.exp(projections[i] @ projections[a] / temperature) for a in others))
        terms.append(-np.mean([projections[i] @ projections[j] / temperature - total for j in partners]))
    return float(np.mean(terms))


def batch(n: int = 40, dtype=torch.float64) -> tuple[torch.Tensor, torch.Tensor]:
    rng = np.random.default_rng(0)
    z = torch.tensor(rng.normal(size=(n, 5)), dtype=dtype)
    return torch.nn.functional.normalize(z, dim=1), torch.tensor(rng.integers(0, 4, n))


@pytest.mark.parametrize("temperature", [0.05, 0.1, 1.0])
def test_equals_the_formula(temperature):
    z, y = batch()
    loss, anchors = supervised_contrastive(z, y, temperature=temperature)
    assert float(loss / anchors) == pytest.approx(naive(z.numpy(), y.numpy(), temperature), rel=1e-12)


def test_anchor_without_partner_is_skipped_and_order_does_not_matter():
    z, y = batch()
    y[0] = 99
    loss, anchors = supervised_contrastive(z, y, temperature=0.1)
    assert int(anchors) == len(y) - 1
    assert float(loss / anchors) == pytest.approx(naive(z.numpy(), y.numpy(), 0.1), rel=1e-12)
    order = torch.randperm(len(y))
    shuffled, _ = supervised_contrastive(z[order], y[order], temperature=0.1)
    assert float(shuffled) == pytest.approx(float(loss), rel=1e-12)


def test_limits():
    # All projections equal: every other event is as likely as any, log(n - 1).
    z, y = torch.ones(10, 1, dtype=torch.float64), torch.arange(10) % 2
    loss, anchors = supervised_contrastive(z, y, temperature=0.1)
    assert float(loss / anchors) == pytest.approx(math.log(9), rel=1e-12)
    # Two opposite clusters at low temperature: only the own cluster counts, log(n_partners).
    loss, anchors = supervised_contrastive(1.0 - 2 * y[:, None].double(), y, temperature=0.01)
    assert float(loss / anchors) == pytest.approx(math.log(4), rel=1e-9)


def test_float32_is_stable_at_low_temperature():
    z, y = batch(512, torch.float32)
    loss, anchors = supervised_contrastive(z, y, temperature=0.01)
    exact, _ = supervised_contrastive(z.double(), y, temperature=0.01)
    assert float(loss / anchors) == pytest.approx(float(exact / anchors), rel=1e-5)


def test_slices_of_a_global_batch_add_up():
    z, y = batch()
    whole, anchors = supervised_contrastive(z, y, temperature=0.1)
    parts = [supervised_contrastive(z[a:b], y[a:b], z, y, first=a, temperature=0.1) for a, b in ((0, 15), (15, 40))]
    assert float(sum(p[0] for p in parts)) == pytest.approx(float(whole), rel=1e-12)
    assert int(sum(p[1] for p in parts)) == int(anchors)


def test_kl_equals_torch_distributions():
    mean, log_variance = torch.randn(50, 6, dtype=torch.float64), torch.randn(50, 6, dtype=torch.float64)
    normal = torch.distributions.Normal(mean, (0.5 * log_variance).exp())
    standard = torch.distributions.Normal(torch.zeros_like(mean), torch.ones_like(mean))
    expected = torch.distributions.kl_divergence(normal, standard).sum(1)
    torch.testing.assert_close(gaussian_kl(mean, log_variance), expected, rtol=1e-12, atol=1e-12)
    assert float(gaussian_kl(torch.zeros(1, 3), torch.zeros(1, 3))) == 0
