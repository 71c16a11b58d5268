"""A template that does not close is never quoted, in any search; one that closes is, also with a signal."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from raypipe.config import load_config
from raypipe.config.sections import Closure
from raypipe.report import haxad as haxad_pages
from raypipe.report.contrastive import TEXTS, headlines
from raypipe.report.html import table_of
from raypipe.report.summary import build_summary
from raypipe.search.case import Tables
from raypipe.search.contrastive import search
from raypipe.search.counting import cut_lines, verdict_of
from raypipe.search.diphoton import prepare_tables
from raypipe.search.haxad import search as haxad_search
from raypipe.search.result import NO_SIGNAL, Trial
from raypipe.search.table import search_table
from tests.conftest import ROOT
from tests.search.test_contrastive import OVERRIDES, made_up_latents
from tests.search.test_haxad import made_up_config, made_up_tables
from tests.search.test_table import OVERRIDES as TABLE_OVERRIDES
from tests.search.test_table import as_features
from tests.search.toys import toy_table


def on_a_ring(values: np.ndarray) -> np.ndarray:
    """The first two columns moved onto a thin circle, which a small flow cannot follow."""
    angle = np.arctan2(values[:, 1], values[:, 0])
    radius = 1 + 1e-3 * values[:, 0]
    return np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1)


def ringed(tables: Tables) -> Tables:
    """The same events with latents on a circle."""

    def one(events):
        latent = on_a_ring(events.latent).astype("f4")
        return replace(events, latent=latent, posterior=np.stack([latent, 0 * latent], axis=1))

    search, higgs = ({k: one(v) for k, v in of.items()} for of in (tables.search, tables.higgs))
    return replace(tables, search=search, higgs=higgs)


@pytest.fixture(scope="module")
def config():
    return load_config(ROOT / "configs/lhco/laptop.yaml", TABLE_OVERRIDES)


@pytest.mark.parametrize(
    ("populated", "auc", "kappa", "words"),
    [
        (True, (0.51, 0.003), (1.0, 0.1), ""),
        (True, (0.5, 0.004), (2.0, 0.2), ""),  # a strong signal has a tail in the sidebands
        (True, (0.57, 0.02), (1.0, 0.3), ""),  # too few events to say
        (True, (0.56, 0.004), (1.0, 0.1), "AUC 0.560 ± 0.004"),
        (True, (0.43, 0.004), (1.0, 0.1), "AUC 0.430"),
        (True, (0.5, 0.01), (25.0, 9.0), "κ = 25 ± 9"),
        (True, (0.5, 0.01), (0.2, 0.05), "κ = 0.2"),
        (True, (0.5, 0.01), (4.0, 3.0), ""),
        (True, (math.nan, math.nan), (math.nan, math.nan), ""),  # no sidebands: nothing to check it in
        (False, (0.5, 0.01), (1.0, 0.1), "no event of the background template"),
    ],
)
def test_limits_on_both_sides(populated, auc, kappa, words):
    verdict = verdict_of(populated, auc, kappa, Closure())
    assert words in verdict
    assert bool(verdict) == bool(words)
    assert "AUC 0.510" in verdict_of(True, (0.51, 0.001), (1.0, 0.1), Closure(auc=0.505))
    assert "κ = 1.5" in verdict_of(True, (0.5, 0.01), (1.5, 0.1), Closure(kappa=1.2))


def test_a_table_that_the_flow_cannot_follow_has_no_significance(config):
    table = toy_table(12_000, 0, 3)
    table[:, 1:3] = on_a_ring(table[:, 1:3] - 0.5)
    row = search_table(as_features(table), config)[0].rows[0]
    assert row["sideband_auc"] > 0.6
    assert math.isnan(row["z_after"])
    assert math.isfinite(row["z_before"])  # of the mass fit alone
    assert "selection.closure.auc = 0.55" in row["verdict"]
    lines = cut_lines(row)
    assert lines[0].endswith("-> withheld")
    assert lines[-1] == f"  NO SIGNIFICANCE: {row['verdict']}"
    # The check does not need the calibration, and who widens the limits gets the number.
    for change, withheld in ({"sideband_calibration": False}, True), ({"closure": Closure(auc=1, kappa=1e6)}, False):
        changed = config.model_copy(update={"selection": config.selection.model_copy(update=change)})
        again = search_table(as_features(table), changed)[0].rows[0]
        assert math.isnan(again["z_after"]) == withheld


def test_a_table_that_closes_is_quoted_with_a_signal_and_without(config):
    for signal in (0, 300):
        row = search_table(as_features(toy_table(12_000, signal, 4)), config)[0].rows[0]
        assert row["verdict"] == ""
        assert abs(row["sideband_auc"] - 0.5) < 0.03
        assert math.isfinite(row["z_after"])


def test_contrastive_rows_summary_and_page_withhold_it():
    settings = load_config(ROOT / "configs/contrastive/laptop.yaml", OVERRIDES)
    tables = prepare_tables(made_up_latents(), settings)
    rows = search(ringed(tables), settings, Trial(NO_SIGNAL, 0.0, 0)).rows
    good = search(tables, settings, Trial(NO_SIGNAL, 0.0, 1)).rows
    assert all(math.isnan(row["z_after"]) and "does not close" in row["verdict"] for row in rows)
    assert all(math.isfinite(row["z_after"]) and row["verdict"] == "" for row in good)
    for some, count in ((rows, 1), (rows + good, 1)):
        every = [row | {"status": "ok", "key": str(i)} for i, row in enumerate(some)]
        summary = build_summary(every, working_point=0.02, target=5.0)
        for entry in summary["results_all_working_points"]:
            assert entry["withheld"]["instances"] == count
            assert "does not close" in entry["withheld"]["reason"]
        said = " ".join(headlines(summary))
        assert f"NO significance is quoted for {count} of {len(some) // 2} pseudo-data sets: the template" in said
        assert any(
            "withheld" in cell for row in table_of(TEXTS["tables"]["results"], summary["results"])[1] for cell in row
        ) == (some is rows)


def test_haxad_rows_and_page_withhold_both_significances():
    settings = made_up_config()
    (row,) = haxad_search(ringed(made_up_tables(settings)), settings, Trial("wn_150", 2.0, 0)).rows
    assert "does not close" in row["verdict"]
    assert all(math.isnan(row[name]) for name in ("z_after", "fit_z_after", "fit_p0_after", "fit_q0_after"))
    assert math.isfinite(row["fit_z_before"])
    summary = haxad_pages.summarise([row | {"status": "ok"}], settings)
    assert summary["results"][0]["fit_z_after"] is None
    assert any("NO significance is quoted for 1 of 1" in line for line in haxad_pages.headlines(summary))
