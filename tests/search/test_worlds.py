"""Other worlds in the stages of a search: all encoders see the same events."""

from __future__ import annotations

from raypipe.config.load import load_config
from raypipe.search.base import search_of
from tests.conftest import ROOT


def test_every_encoder_sees_the_same_events_of_a_world():
    given = ["embedding.encoders=2", "scan.variations=[met_noise, tag_loss]"]
    search = search_of(load_config(ROOT / "configs/contrastive/demo.yaml", given))
    grid = search.grid()
    items = search.latents({"simulate": {"events": {"key": "events"}}}, grid)
    assert [item.name for item in items] == [
        *("id 0", "id 1", "id 0~met_noise", "id 1~met_noise", "id 0~tag_loss", "id 1~tag_loss")
    ]
    first, second = items[2].what, items[3].what
    assert first.world == second.world == ("met_noise", search.config.seed)
    assert first.config.seed != second.config.seed  # of the encoders
    assert len({item.key for item in items}) == len({item.folder for item in items}) == 6
    worlds = {trial.embedding for trial in grid}
    assert worlds == {"id", "id~met_noise", "id~tag_loss"}
    assert len(grid) == 3 * 8
    made = {"latents": {item.name: {"digest": item.key} for item in items}}
    assert len(search.materials("id~tag_loss", made)["latents"]) == 4  # the simulation is nominal
