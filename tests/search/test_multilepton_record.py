"""The recorded study of the multilepton search: what it says must hold, as far as it has run."""

from __future__ import annotations

import pytest

from raypipe.files import read_json
from tests.search.record import RECORD

pytestmark = pytest.mark.skipif(not RECORD.is_file(), reason="no recorded study (make study-multilepton)")


def test_the_record_is_of_paper_b_s_four_statistics_and_both_losses():
    record = read_json(RECORD)
    assert record["failed"] == 0
    for loss in ("mlc", "bce"):
        for statistic in ("mean_loss", "mean_score", "max_score", "std_score"):
            assert f"{loss} {statistic}" in record["tests"]
    # Without signal the BCE loss is near log 2 and the mean MLC score near 0 (paper B, section 4).
    assert record["tests"]["bce mean_loss"]["bands"]["median"] == pytest.approx(0.6931, abs=0.02)
    assert record["tests"]["mlc mean_score"]["bands"]["median"] == pytest.approx(0, abs=0.1)


def test_recorded_type_one_errors():
    checks = [t["calibration"] for t in read_json(RECORD)["tests"].values() if "calibration" in t]
    if not checks:
        pytest.skip("the recorded study has no calibration yet")
    for check in checks:
        assert abs(check["type_i"] - 0.05) < 3 * check["error"]
        assert check["ks_p"] > 1e-3
