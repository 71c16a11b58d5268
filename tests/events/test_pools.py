"""Pools of events: draws, and reading a user's tables."""

from __future__ import annotations

from decimal import Decimal

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import pytest

from raypipe.errors import UserError
from raypipe.events.pools import Pool, read_columns, read_pool
from tests.conftest import ROOT

CMS = ROOT.parent / "shared" / "data" / "cms_4lepton"


def test_draws_follow_the_weights():
    pool = Pool(
        np.arange(3000.0)[:, None],
        np.r_[np.full(1000, 3.0), np.full(2000, 0.5)],
        np.r_[np.zeros(1000, int), np.ones(2000, int)],
        ("a", "b"),
    )
    rows = pool.draw(800, np.random.default_rng(1), False, "test")
    assert len(set(rows)) == 800
    share = (rows < 1000).mean()  # 3000 of 4000 by weight
    assert share == pytest.approx(0.75, abs=4 * np.sqrt(0.75 * 0.25 / 800))
    again = pool.draw(800, np.random.default_rng(1), True, "test")
    assert len(set(again)) < 800
    with pytest.raises(UserError, match="events of 'a' but there are 1000"):
        pool.draw(2900, np.random.default_rng(1), False, "test")


def test_an_order_is_nested_and_leaves_out_zero_weights():
    pool = Pool(np.zeros((6, 1)), np.array([1.0, 0, 1, 100, 1, 1]), np.zeros(6, int), ("a",))
    order = pool.order(np.random.default_rng(2))
    assert sorted(order) == [0, 2, 3, 4, 5]
    assert np.mean([pool.order(np.random.default_rng(i))[0] == 3 for i in range(200)]) > 0.9


def test_bad_tables_are_one_line(tmp_path):
    path = tmp_path / "t.csv"
    pa.csv.write_csv(pa.table({"x": [1.0, float("nan")], "w": [1.0, -1.0], "s": ["a", "b"]}), path)
    text = r"column 's' has type string, expected numbers: row 0 holds 'a' \(line 2\)"
    for columns, words in ((["x"], "column 'x', row 1"), (["q"], "column 'q' is missing"), (["s"], text)):
        with pytest.raises(UserError, match=words):
            read_columns(path, columns)
    with pytest.raises(UserError, match=r"column 'w', row 1: -1\.0 is negative"):
        read_pool(path, "t", ["w"], "w")


def test_decimals_are_numbers(tmp_path):
    path = tmp_path / "t.parquet"
    pa.parquet.write_table(pa.table({"x": [Decimal("1.50"), Decimal("2.25")]}), path)
    assert read_columns(path, ["x"])["x"].tolist() == [1.5, 2.25]


def test_a_pool_with_signs_has_their_yield_and_draws_their_distribution(tmp_path):
    """A fifth of the weights is -0.01: the yield is 0.6 of 80 events. Those lie at 1.0 +- 0.5, the others at 0 +- 1.

    Then the mean of the sample is (0 x 0.8 - 1 x 0.2) / 0.6 and the mean square (1 x 0.8 - 1.25 x 0.2) / 0.6.
    """
    rng = np.random.default_rng(3)
    negative = rng.random(8000) < 0.2
    values = np.where(negative, rng.normal(1, 0.5, 8000), rng.normal(0, 1, 8000))
    table = {"x": values, "w": np.where(negative, -0.01, 0.01)}
    pa.csv.write_csv(pa.table(table), tmp_path / "nlo.csv")
    with pytest.raises(UserError, match=r"'w', row \d+: -0\.01 is negative: files\.weights=sign keeps the signs"):
        read_pool(tmp_path / "nlo.csv", "nlo", ["x"], "w")
    pool = read_pool(tmp_path / "nlo.csv", "nlo", ["x"], "w", "sign")
    assert pool.weight.sum() == pytest.approx(table["w"].sum(), rel=1e-9)
    assert pool.weight.sum() / 80 == pytest.approx(0.6, abs=4 * 2 * 0.4 / np.sqrt(8000))
    drawn = pool.values[pool.draw(20_000, np.random.default_rng(1), True, "test"), 0]
    assert drawn.mean() == pytest.approx(-1 / 3, abs=0.06)
    assert (drawn**2).mean() == pytest.approx(0.55 / 0.6, abs=0.08)
    assert len(pool.draw(2000, np.random.default_rng(1), False, "test")) == 2000


@pytest.mark.skipif(not CMS.is_dir(), reason="CMS open-data candidates (shared/data/cms_4lepton) are not here")
def test_cms_candidates_by_flavour():
    found = [read_columns(CMS / f"2e2mu_{year}.csv", ["m_4l", "m_ee", "m_mumu"]) for year in (2011, 2012)]
    assert [len(f["m_4l"]) for f in found] == [13, 104]
    # The first candidate: its own M, and the masses of its pairs in the order ee, mumu.
    assert found[0]["m_4l"][0] == pytest.approx(185.693, abs=0.01)
    assert sorted((found[0]["m_ee"][0], found[0]["m_mumu"][0])) == pytest.approx([90.3889, 92.539], abs=0.01)
    hard = read_columns(CMS / "2e2mu_2012.csv", ["m_4l"], lepton_pt=10.0)
    assert 60 < len(hard["m_4l"]) < 104
    with pytest.raises(UserError, match=r"is e\+e-mu\+mu-"):
        read_columns(CMS / "4mu_2011.csv", ["m_ee"])
