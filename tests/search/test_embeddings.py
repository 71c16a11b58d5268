"""Hold-outs: which samples an encoder may see, and that no other event reaches its training."""

from __future__ import annotations

import numpy as np
import pytest

from raypipe.config import Config, load_config
from raypipe.errors import UserError
from raypipe.events.continuous import continuous_features
from raypipe.events.schema import FEATURES
from raypipe.fit.batches import dealt
from raypipe.search.contrastive_search import encoder_config, representation, training_samples
from raypipe.search.result import NO_SIGNAL, Trial
from tests.conftest import ROOT

GROUPS = {"yy": 0, "ggf": 1, "wn_150": -1, "wn_300": -1, "xsh_500_100": -2}
SAMPLES = list(GROUPS)


def test_training_samples_of_the_four_configurations():
    assert training_samples("id", SAMPLES) == SAMPLES
    assert training_samples("background", SAMPLES) == ["yy", "ggf"]
    assert training_samples("ip:wn_150", SAMPLES) == ["yy", "ggf", "wn_300", "xsh_500_100"]
    assert training_samples("ep:-1", SAMPLES) == ["yy", "ggf", "xsh_500_100"]
    for name in ("ip:zp_400", "ep:-7"):
        with pytest.raises(UserError, match=f"hold-out '{name}': no such sample or family"):
            training_samples(name, SAMPLES)


def test_the_encoder_of_the_background_can_have_a_beta_of_its_own():
    asked = ["embedding.betas={background: 0.1, ep: 0.2}", "embedding.samples=[yy, ggf, wn_150, xsh_500_100]"]
    config = load_config(ROOT / "configs/contrastive/laptop.yaml", [*asked, "embedding.beta=0.01"])
    made = {name: encoder_config(config, name, 0).embedding for name in ("id", "background", "ep:-1")}
    assert [found.beta for found in made.values()] == [0.01, 0.1, 0.2]
    assert all(found.betas == {} for found in made.values())  # another's is not in the key of an encoder
    with pytest.raises(UserError, match=r"embedding\.betas"):
        load_config(ROOT / "configs/contrastive/laptop.yaml", ["embedding.betas={SM: 0.1}"])


def test_a_trial_names_its_representation():
    assert representation(Trial("wn_150", 1.0, 0, "ip")) == "ip:wn_150"
    assert representation(Trial("wn_150", 1.0, 0, "ep")) == "ep:-1"
    assert representation(Trial("wn_150", 1.0, 0, "raw", "idealised")) == "raw"
    with pytest.raises(UserError, match="holds out the injected signal"):
        representation(Trial(NO_SIGNAL, 0.0, 0, "ep"))


@pytest.mark.ray
def test_no_held_out_event_reaches_the_training(ray_local, tmp_path):
    from raypipe.cluster.inputs import read_inputs
    from raypipe.events.table import write_table
    from tests.events.helpers import event_table

    ids = {}
    for k, (name, group) in enumerate(GROUPS.items()):
        table = event_table(50, sample=name, group=group, split="embedding", first=1000 * k)
        ids[name] = set(table["event_id"].to_pylist())
        write_table(table, tmp_path / "embedding" / f"{name}.parquet")
    config = Config.model_validate(
        {
            "simulate": {"samples": {name: {} for name in SAMPLES}},
            "embedding": {"samples": SAMPLES},
            "pseudodata": {"background": ["yy", "ggf"]},
            "selection": {"working_points": [0.01]},
            "scan": {"signals": ["wn_150"], "strengths": [1.0]},
        }
    )
    for name, held in (("id", []), ("background", SAMPLES[2:]), ("ip:wn_150", ["wn_150"]), ("ep:-1", SAMPLES[2:4])):
        inputs = read_inputs(encoder_config(config, name, 0), tmp_path)
        seen = set(inputs.event_id.tolist())
        assert seen == set().union(*(ids[s] for s in SAMPLES if s not in held))
        assert set(inputs.group.tolist()) == {GROUPS[s] for s in SAMPLES if s not in held}
    assert encoder_config(config, "id", 1).seed != config.seed


@pytest.mark.parametrize("parts_seed", ["null", "7"])
def test_all_encoders_of_a_run_are_trained_on_the_same_part(parts_seed):
    given, ids = (
        load_config(ROOT / "configs/contrastive/demo.yaml", [f"embedding.parts_seed={parts_seed}"]),
        np.arange(3000),
    )
    run = dealt(ids, given.embedding, given.seed)
    for member in range(3):
        own = encoder_config(given, "id", member)
        assert (dealt(ids, own.embedding, own.seed) == run).all()
    assert (dealt(ids, given.embedding, given.seed + 1) != run).any() == (parts_seed == "null")


def test_raw_features_become_continuous_and_keep_their_order():
    rng = np.random.default_rng(1)
    features = np.abs(rng.normal(100, 50, (4000, 9))).astype(np.float32)
    columns = {name: k for k, name in enumerate(FEATURES)}
    features[:, columns["n_jet"]] = rng.integers(0, 5, 4000)
    features[:1000, columns["m_jj"]] = 0
    smooth = continuous_features(features, np.arange(4000), seed=3)
    assert len(np.unique(smooth[:, columns["n_jet"]])) == 4000
    np.testing.assert_array_equal(np.round(smooth[:, columns["n_jet"]]), features[:, columns["n_jet"]])
    assert smooth[:1000, columns["m_jj"]].max() < 0 < smooth[1000:, columns["m_jj"]].min()
    met = columns["met"]
    np.testing.assert_allclose(10 * np.expm1(smooth[:, met]), features[:, met], rtol=1e-5)
    shuffled = rng.permutation(4000)
    again = continuous_features(features[shuffled], np.arange(4000)[shuffled], seed=3)
    np.testing.assert_array_equal(again, smooth[shuffled])
