"""The autoencoder of paper A."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch

from raypipe.config.haxad import Vae
from raypipe.errors import UserError
from raypipe.fit.encoder import embed
from raypipe.fit.training import finish
from raypipe.fit.vae import VaeTraining, fit_vae


def correlated(n: int, seed: int) -> np.ndarray:
    """Nine features of which two directions hold everything."""
    rng = np.random.default_rng(seed)
    mixing = np.random.default_rng(0).normal(size=(2, 9))
    return 5 + rng.normal(size=(n, 2)) @ mixing + 0.05 * rng.normal(size=(n, 9))


def test_two_latent_dimensions_suffice_for_two_directions():
    config = Vae(samples=["yy"], latent=2, hidden=[32], beta=0.1, epochs=20, batch_size=256, learning_rate=5e-3)
    model, history = fit_vae(correlated(6000, 1), correlated(2000, 2), config, seed=1)
    # Of the nine units of variance only noise and sampling are left.
    assert history[-1]["error"] < 1.0
    assert history[0]["error"] > history[-1]["error"]
    latents, _ = embed(model, [correlated(4000, 3)], np.random.default_rng(4).standard_normal((4000, 2)))
    assert np.abs(latents.mean(0)).max() < 0.2
    assert latents.std(0) == pytest.approx(1, abs=0.25)


def test_same_seed_same_bits_and_errors_are_one_line():
    config = Vae(samples=["yy"], latent=2, hidden=[8], epochs=2, batch_size=100)
    data = correlated(500, 1)
    a, b = (fit_vae(data, data, config, seed=7)[0].state_dict() for _ in range(2))
    assert all((a[k] == b[k]).all() for k in a)
    with pytest.raises(UserError, match=r"batch_size = 100: only 50 training"):
        fit_vae(data[:50], data, config, seed=7)


def test_a_training_that_is_saved_and_restored_goes_on_as_if_never_interrupted():
    config = Vae(samples=["yy"], latent=2, hidden=[8], epochs=5, batch_size=100)
    data = correlated(500, 1)
    whole, history = fit_vae(data, data, config, seed=7)
    first, second = (VaeTraining(data, data, config, seed=7) for _ in range(2))
    for _ in range(2):
        first.run_epoch()
    buffer = io.BytesIO()
    torch.save(first.state(), buffer)
    buffer.seek(0)
    second.load_state(torch.load(buffer, weights_only=True))
    finish(second)
    assert second.history == history
    for name, value in whole.state_dict().items():
        assert torch.equal(second.best[name], value), name
