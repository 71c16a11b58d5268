"""Artefacts that runs share: whole or absent, the first one stays, damage is noticed, nothing is made twice."""

from __future__ import annotations

import multiprocessing
import os
from pathlib import Path

import pytest

from raypipe.cluster import simulate as shell
from raypipe.cluster import stages
from raypipe.cluster.run import Run
from raypipe.config import load_config
from raypipe.errors import UserError
from raypipe.search.result import NO_SIGNAL, Trial
from raypipe.store.files import Artefacts
from raypipe.store.ledger import Ledger, open_ledger
from tests.cluster.test_simulate import _config, _files
from tests.conftest import ROOT

NAMES = ("model", "record")


def files(folder: Path, text: str | None = None) -> dict[str, Path]:
    """Both files of an artefact in ``folder``, written if there is a ``text``."""
    folder.mkdir(parents=True, exist_ok=True)
    found = {name: folder / name for name in NAMES}
    for path in found.values() if text is not None else ():
        path.write_text(text)
    return found


def test_the_first_stays_and_is_taken_whole(tmp_path):
    shared = Artefacts(tmp_path / "shared")
    first, target = files(tmp_path / "a", "first"), files(tmp_path / "c")
    assert not shared.take("kind", "k", target)
    assert shared.give("kind", "k", first)
    assert not shared.give("kind", "k", files(tmp_path / "b", "second"))
    assert Artefacts(tmp_path / "shared").take("kind", "k", target)
    assert [path.read_text() for path in target.values()] == ["first", "first"]
    assert target["model"].stat().st_ino == first["model"].stat().st_ino  # no second copy on the disk
    # What a run writes later, by renaming as raypipe always does, is its own.
    (tmp_path / "c" / "new").write_text("changed")
    os.replace(tmp_path / "c" / "new", target["model"])
    assert shared.take("kind", "k", files(tmp_path / "d"))
    assert (tmp_path / "d" / "model").read_text() == "first"
    assert shared.take("kind", "k", target)  # again, over what is there, some of it the same file
    assert not list(tmp_path.rglob(".tmp-*"))


def test_without_links_it_is_a_copy(tmp_path, monkeypatch):
    def refused(*paths):
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr("raypipe.store.files.os.link", refused)
    shared, target = Artefacts(tmp_path / "shared"), files(tmp_path / "b")
    assert shared.give("kind", "k", files(tmp_path / "a", "text"))
    assert shared.take("kind", "k", target)
    assert [path.read_text() for path in target.values()] == ["text", "text"]
    assert not list(tmp_path.rglob(".tmp-*"))


@pytest.mark.parametrize("damage", ["content", "lost file", "lost digests"])
def test_damage_counts_as_absent_and_makes_room(tmp_path, damage):
    shared, place = Artefacts(tmp_path / "shared"), tmp_path / "shared" / "kind" / "k"
    shared.give("kind", "k", files(tmp_path / "a", "good"))
    if damage == "content":
        (place / "model").write_text("baad")
    else:
        (place / ("model" if damage == "lost file" else "digests.json")).unlink()
    assert not shared.take("kind", "k", files(tmp_path / "b"))
    assert not (tmp_path / "b" / "model").exists()
    assert shared.give("kind", "k", files(tmp_path / "c", "better"))
    assert shared.take("kind", "k", files(tmp_path / "b"))
    assert (tmp_path / "b" / "record").read_text() == "better"


def _race(root: Path, me: int, start) -> None:
    shared, won = Artefacts(root / "shared"), 0
    start.wait()
    for number in range(60):
        own = files(root / f"of-{me}" / str(number), f"{me} {number} " * 2000)
        won += shared.give("kind", str(number), own)
        taken = files(root / f"taken-{me}" / str(number))
        assert shared.take("kind", str(number), taken)
        model, record = (path.read_text() for path in taken.values())
        assert model == record  # both files of one writer
        assert model.split()[1] == str(number)
    (root / f"won-{me}").write_text(str(won))


def test_runs_that_finish_the_same_at_once_agree(tmp_path):
    context = multiprocessing.get_context("fork")
    start = context.Barrier(3)
    runs = [context.Process(target=_race, args=(tmp_path, me, start)) for me in range(3)]
    for run in runs:
        run.start()
    for run in runs:
        run.join(120)
        assert run.exitcode == 0
    assert sum(int((tmp_path / f"won-{me}").read_text()) for me in range(3)) == 60
    for number in range(60):
        assert len({(tmp_path / f"taken-{me}" / str(number) / "model").read_text() for me in range(3)}) == 1
    assert not list(tmp_path.rglob(".tmp-*"))


def test_stages_of_two_ledgers_are_one(tmp_path, laptop_yaml):
    def book(output: str) -> Ledger:
        return open_ledger(
            load_config(laptop_yaml, [f"output={tmp_path}/{output}", f"resources.artefacts={tmp_path}/s"])
        )

    assert book("a").stage("flow", "k", lambda: {"value": 1}) == {"value": 1}
    assert book("b").stage("flow", "k", lambda: pytest.fail("made twice")) == {"value": 1}
    assert book("b").flow_file("row", {"flow_stage": "k"}, tmp_path) is not None
    assert not (tmp_path / "a" / "ledger" / "stages").exists()


def test_bad_places_are_one_line(tmp_path, monkeypatch):
    with pytest.raises(UserError, match="expected a folder that all machines see, not a URL"):
        Artefacts("s3://bucket/shared")
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot create this folder"):
        Artefacts(tmp_path / "file" / "shared")
    monkeypatch.setenv("RAYPIPE_OUTPUT_ROOT", str(tmp_path / "root"))
    with pytest.raises(UserError, match="outside RAYPIPE_OUTPUT_ROOT"):
        Artefacts(tmp_path / "elsewhere")


@pytest.mark.ray
def test_shards_of_another_run_are_not_simulated_again(ray_local, tmp_path, monkeypatch):
    shared = Artefacts(tmp_path / "shared")
    small, large = _config({"ggf": {"events": 20}}), _config({"ggf": {"events": 20}, "zp_400": {"events": 20}})
    shell.simulate(small, tmp_path / "one", artefacts=shared)

    def recorded(shard, events):
        (tmp_path / f"made-{shard.process.name}").touch()
        return shard.make(events)

    monkeypatch.setattr(shell, "_make_shard", lambda shard, events: recorded(shard, events))
    # Another data set: only what it has more is simulated.
    first = shell.simulate(large, tmp_path / "two", artefacts=shared)
    assert {path.name for path in tmp_path.glob("made-*")} == {"made-zp_400"}
    (tmp_path / "made-zp_400").unlink()
    again = shell.simulate(large, tmp_path / "three", artefacts=shared)
    assert not list(tmp_path.glob("made-*"))
    assert again == first
    assert _files(tmp_path / "three") == _files(tmp_path / "two")


@pytest.mark.ray
def test_haxad_runs_share_one_autoencoder(ray_local, tmp_path, monkeypatch):
    def run(name: str, *overrides: str) -> Run:
        samples = "{yy: {events: 60}, ggf: {events: 60}, wn_150: {events: 20}}"
        return Run(
            load_config(
                ROOT / "configs/haxad/laptop.yaml",
                [
                    f"simulate.samples={samples}",
                    "embedding.samples=[yy, ggf]",
                    "embedding.epochs=1",
                    "embedding.batch_size=8",
                    "pseudodata.background=[yy, ggf]",
                    "scan.signals=[wn_150]",
                    f"output={tmp_path / name}",
                    f"resources.artefacts={tmp_path / 'shared'}",
                    *overrides,
                ],
            )
        )

    trials = [Trial(NO_SIGNAL, 0.0, 0)]
    with run("one") as one:
        record = one.make(trials)["latents"]
    monkeypatch.setattr(stages, "train_autoencoder", lambda *_: pytest.fail("trained twice"))
    with run("two") as two:
        assert two.make(trials)["latents"] == record
        assert "encoder" not in two.times()
    assert (two.folder / "encoder/vae.pt").samefile(one.folder / "encoder/vae.pt")
    # What makes another autoencoder is not given the same one.
    with run("three", "embedding.epochs=2") as three, pytest.raises(pytest.fail.Exception, match="trained twice"):
        three.make(trials)
