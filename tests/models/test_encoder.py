"""Invariants of the particle transformer."""

from __future__ import annotations

import math

import pytest
import torch

from raypipe.config import Embedding, Encoder
from raypipe.models.encoder import ETA, MASS, PHI, PT, ContrastiveEncoder, Scales, pair_features, with_photon_pair

SMALL = Encoder(width=32, heads=4, particle_blocks=2, class_blocks=1, pair_width=16, dropout=0.0, layer_scale=0.5)


def events(n: int = 64) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    present = torch.rand(n, 11, generator=generator) < 0.5
    present[:, 10] = True
    objects = torch.zeros(n, 11, 12)
    objects[..., 0] = 30 + 50 * torch.rand(n, 11, generator=generator)
    objects[..., 1] = 4 * torch.rand(n, 11, generator=generator) - 2
    objects[..., 2] = 6 * torch.rand(n, 11, generator=generator) - 3
    objects[..., 3] = 10 * torch.rand(n, 11, generator=generator)
    objects[..., 7] = 1
    return objects * present[..., None], torch.rand(n, 2, generator=generator) * 50


def build(config: Encoder = SMALL) -> ContrastiveEncoder:
    torch.manual_seed(1)
    return ContrastiveEncoder(config, Scales.measure(*events())).eval()


def test_paper_size_has_about_1_1_million_parameters():
    encoder = ContrastiveEncoder(Encoder())
    count = sum(p.numel() for p in encoder.parameters())
    assert count == pytest.approx(1.1e6, rel=0.1)  # paper C, section III.1
    assert encoder.encode(*events(3))[0].shape == (3, 6)


def test_order_and_number_of_padded_slots_do_not_matter():
    encoder = build().double()
    objects, event = (t.double() for t in events())
    mean, log_variance = encoder.encode(objects, event)
    order = torch.randperm(11)
    again = encoder.encode(objects[:, order], event)
    torch.testing.assert_close(again[0], mean, rtol=1e-9, atol=1e-9)
    padded = torch.cat([objects, torch.zeros(len(objects), 3, 12, dtype=objects.dtype)], dim=1)
    torch.testing.assert_close(encoder.encode(padded, event)[1], log_variance, rtol=1e-9, atol=1e-9)


def test_packed_equals_padded():
    encoder = build().double()
    objects, event = (t.double() for t in events())
    packed, padded = (encoder.encode(objects, event, packed=p) for p in (True, False))
    torch.testing.assert_close(packed[0], padded[0], rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(packed[1], padded[1], rtol=1e-9, atol=1e-9)
    gradients = []
    for p in (True, False):
        encoder.zero_grad()
        encoder.encode(objects, event, packed=p)[0].square().sum().backward()
        gradients.append(torch.cat([q.grad.flatten() for q in encoder.parameters() if q.grad is not None]))
    torch.testing.assert_close(*gradients, rtol=1e-8, atol=1e-8)


def test_every_input_matters():
    encoder = build()
    objects, event = events(8)
    objects.requires_grad_()
    event.requires_grad_()
    encoder.encode(objects, event)[0].square().sum().backward()
    present = objects[..., 0] > 0
    gradient = objects.grad[present].abs().amax(0)
    # pT, eta, phi, mass, btag (at 0 the clamp still passes), tau32, tau43 and the one-hot
    assert (gradient > 0).all()
    assert (event.grad.abs().amax(0) > 0).all()
    assert (objects.grad[~present] == 0).all()


def test_empty_event_is_finite():
    mean, log_variance = build().encode(torch.zeros(2, 11, 12), torch.zeros(2, 2))
    assert torch.isfinite(mean).all()
    assert torch.isfinite(log_variance).all()


def test_pair_mass_and_angles():
    objects = torch.zeros(1, 2, 12, dtype=torch.float64)
    objects[0, 0, :4] = torch.tensor([50.0, 0.3, 3.0, 0.0], dtype=torch.float64)
    objects[0, 1, :4] = torch.tensor([40.0, -0.5, -3.0, 0.0], dtype=torch.float64)
    pair = pair_features(objects[0, 0], objects[0, 1])
    d_phi = 6.0 - 2 * math.pi
    mass = math.sqrt(2 * 50 * 40 * (math.cosh(0.8) - math.cos(d_phi)))
    assert pair[0] == pytest.approx(0.8)
    assert pair[1] == pytest.approx(d_phi)
    assert pair[2] == pytest.approx(math.hypot(0.8, d_phi))
    assert pair[3] == pytest.approx(10 / 90)
    assert pair[5] == pytest.approx(math.log1p(mass), rel=1e-6)


def test_normalised_projection_and_sampled_latent():
    encoder = build()
    objects, event = events(16)
    zero = encoder(objects, event, torch.zeros(16, 6))
    noisy = encoder(objects, event, torch.ones(16, 6))
    torch.testing.assert_close(zero[2].norm(dim=1), torch.ones(16))
    torch.testing.assert_close(zero[0], noisy[0])
    assert (zero[2] - noisy[2]).abs().max() > 1e-4


def test_the_photon_pair_is_an_object_of_125_gev_among_the_others():
    objects, event = (t.double() for t in events(200))
    together = with_photon_pair(objects, event)
    assert together.shape == (200, 12, 12)
    torch.testing.assert_close(together[:, :11], objects, rtol=0, atol=0)
    log_mass = pair_features(together[:, :11], together[:, 11:])[..., -1]
    # m^2 = m_j^2 + m_H^2 + 2 (E_j E_H - p_j . p_H); angles are measured from the pair.
    pt, eta, phi, mass = (objects[..., i] for i in (PT, ETA, PHI, MASS))
    energy = (pt**2 * eta.cosh() ** 2 + mass**2).sqrt()
    pair_pt = event[:, :1]
    squared = mass**2 + 125.0**2 + 2 * (energy * (pair_pt**2 + 125.0**2).sqrt() - pt * pair_pt * phi.cos())
    present = pt > 0
    torch.testing.assert_close(log_mass[present], squared.sqrt().log1p()[present], rtol=1e-9, atol=1e-9)


def test_an_encoder_with_the_photon_pair_is_the_same_function_packed_and_padded():
    encoder = build(SMALL.model_copy(update={"photon_pair": True})).double()
    objects, event = (t.double() for t in events())
    packed, padded = (encoder.encode(objects, event, packed=p) for p in (True, False))
    torch.testing.assert_close(packed[0], padded[0], rtol=1e-9, atol=1e-9)
    without = build().double().encode(objects, event)
    assert (packed[0] - without[0]).abs().max() > 1e-3
    with pytest.raises(ValueError, match="photon_pair needs eta = diphoton, not lab"):
        Embedding(samples=["yy"], encoder=Encoder(photon_pair=True))
