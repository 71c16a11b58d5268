"""`Run`: the folder, keys and numbers of the command line, also without Ray."""

from __future__ import annotations

import json
import sys

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

import raypipe as rp
from raypipe.cli import main
from raypipe.kinds import BACKGROUNDS
from raypipe.search.result import Trial
from tests.api.test_front import alone
from tests.conftest import ROOT
from tests.search.test_table import OVERRIDES
from tests.search.toys import toy_table

LHCO, CONTRASTIVE = (str(ROOT / "configs" / name / "laptop.yaml") for name in ("lhco", "contrastive"))
EVENTS = """
search: none
output: {}
seed: 5
simulate:
  samples: {{ yy: {{ events: 150 }}, vh: {{ events: 60 }} }}
  shard_events: 80
"""


def plain(rows: list[dict]) -> list[dict]:
    """Rows without what depends on the machine."""
    return [{k: repr(v) for k, v in row.items() if not k.startswith("seconds")} for row in rows]


@pytest.fixture(scope="module")
def overrides(tmp_path_factory):
    folder = tmp_path_factory.mktemp("table")
    np.save(folder / "data.npy", toy_table(10_000, 100, 4))
    np.save(folder / "simulated.npy", toy_table(10_000, 0, 5))
    return [*OVERRIDES, f"data.path={folder}/data.npy", f"background.path={folder}/simulated.npy"]


def test_nothing_happens_before_something_is_asked_for(tmp_path):
    run = rp.Run(rp.load(CONTRASTIVE, f"output={tmp_path / 'run'}"))
    assert repr(run) == f"Run(contrastive, {tmp_path / 'run'})"
    run.close()
    assert not list(tmp_path.iterdir())


def test_a_search_on_a_table_is_that_of_the_command_without_ray(overrides, tmp_path):
    done = CliRunner().invoke(main, ["search", "--config", LHCO, "--output", f"{tmp_path}/cli", "--json", *overrides])
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)["rows"]
    names = json.dumps([*overrides, f"output={tmp_path}/api"])
    code = f"import sys, raypipe as rp; run = rp.Run(rp.load({LHCO!r}, *{names}), ray=False); found = run.search()\n"
    code += "assert 'ray' not in sys.modules and 'torch' not in sys.modules\n"
    code += "print(found.rows.drop(columns='status').to_json(orient='records', double_precision=15), found.z_after)"
    rows, z = alone(code).rsplit(" ", 1)
    (mine,) = json.loads(rows)
    for name, value in told[0].items():
        if not name.startswith("seconds") and name != "status":
            assert mine[name] == (pytest.approx(value, rel=1e-12) if isinstance(value, float) else value), name
    assert float(z) == pytest.approx(told[0]["z_after"], rel=1e-12)
    assert (tmp_path / "api" / "scores.parquet").read_bytes() == (tmp_path / "cli" / "scores.parquet").read_bytes()


def test_a_result_shows_itself(overrides, tmp_path):
    found = rp.Run(rp.load(LHCO, *overrides, f"output={tmp_path}"), ray=False).search()
    assert repr(found).split()[:4] == ["signal", "strength", "working_point", "n_after"]
    assert "z_after" in found._repr_html_()
    assert found.z_after == found.rows["z_after"][0] > found.z_before
    assert found.plot.mass()._repr_png_().startswith(b"\x89PNG")


def test_latents_of_pseudo_data_are_drawn(tmp_path):
    run = rp.Run(rp.load(CONTRASTIVE, f"output={tmp_path}"), ray=False)
    latents = {f"latent{k}_{name}": np.full(4, 7.0) for k in (0, 1) for name in ("template", "data", "true", "signal")}
    latents |= {f"latent{k}_edges": np.arange(5.0) for k in (0, 1)}
    figure = run._figures(latents, Trial("none", 0.0, 3), pd.DataFrame(), {}).latents()
    assert [axis.get_title() for axis in figure.axes] == ["no signal, instance 3", ""]


def test_arguments_without_effect_and_unknown_samples_are_refused(overrides, tmp_path):
    table = rp.Run(rp.load(LHCO, *overrides, f"output={tmp_path}"), ray=False)
    with pytest.raises(rp.UserError, match="strength has no effect: a search on a table"):
        table.search(strength=3)
    with pytest.raises(rp.UserError, match="sample 'yy': this search simulates nothing"):
        table.events("yy")
    with pytest.raises(rp.UserError, match="a table search has no encoder"):
        table.latents()
    with pytest.raises(rp.UserError, match=r"--signal 'zz' is not in scan\.signals"):
        rp.Run(rp.load(CONTRASTIVE, f"output={tmp_path}"), ray=False).search("zz", 1)


@pytest.mark.ray
def test_events_have_the_bits_of_the_command(ray_local, tmp_path):
    (tmp_path / "events.yaml").write_text(EVENTS.format(tmp_path / "api"))
    arguments = ["simulate", "--config", f"{tmp_path}/events.yaml", "--output", f"{tmp_path}/cli"]
    assert CliRunner().invoke(main, arguments).exit_code == 0
    code = f"import sys, raypipe as rp; run = rp.Run({str(tmp_path / 'events.yaml')!r}, ray=False)\n"
    code += "print(run.events('yy').num_rows, run.events('vh', 'search').num_rows, 'ray' in sys.modules)"
    *rows, ray = alone(code).split()[-3:]
    assert ray == "False"
    assert int(rows[0]) >= 150
    assert int(rows[1]) < 60
    for name in ("search/yy", "embedding/yy", "search/vh", "embedding/vh"):
        files = [tmp_path / way / "events" / f"{name}.parquet" for way in ("cli", "api")]
        assert files[0].read_bytes() == files[1].read_bytes()
    again = rp.Run(str(tmp_path / "events.yaml")).events("yy")
    assert again.num_rows == int(rows[0])


def test_a_background_of_ones_own_is_known_by_name():
    @rp.background("mine")
    def mine(case, config, seed, tools):
        raise NotImplementedError

    try:
        assert rp.load(CONTRASTIVE, "scan.methods=[cathode, mine]").scan.methods == ["cathode", "mine"]
        assert BACKGROUNDS["mine"].make is mine
    finally:
        del BACKGROUNDS["mine"]
    with pytest.raises(rp.UserError, match="mine"):
        rp.load(CONTRASTIVE, "scan.methods=[mine]")
    assert "raypipe.api" in sys.modules
