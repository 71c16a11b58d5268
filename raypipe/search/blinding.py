"""What a blind search on a table may say: its sidebands, and a window in each that is searched as a signal region."""

from typing import Any

import numpy as np
import pyarrow as pa

from raypipe.config.table import TableConfig
from raypipe.errors import UserError
from raypipe.events.readers.features import FeatureTable
from raypipe.search.result import Result
from raypipe.search.table import search_table
from raypipe.stats.sideband import fit_sidebands

VALIDATION = "validation"  # Name of the one trial of a blind search
OBSERVED = {"n_before": "observed_before", "n_after": "observed_after"}  # Of a validation window, not the signal region


def search_sidebands(data: FeatureTable, config: TableConfig, **given: Any) -> Result:
    """All that is known without an event of the signal region; ``given`` as in `search_table`.

    First row: what the sidebands expect there. Others: `search_table` (or why it ``refused``) on each sideband alone,
    the middle third of its events its signal region, whose scores are the table ``validation``.
    """
    window, source = config.window, given.get("source", "data")
    data = data.take(window.beside(data.mass)).distinct(config.data.duplicates, source, "data.duplicates")[0]
    fit = fit_sidebands(data.mass, window, config.massfit)
    row = {"sideband": "both", "events": len(data), "massfit_chi2": fit.chi2, "massfit_ndf": fit.ndf}
    row |= zip(("expected_before", "expected_before_error"), fit.integral(window.sr_low, window.sr_high), strict=True)
    rows, tables = [row], [pa.table({"event_id": pa.array([], pa.int64())})]
    for name, low, high in (("lower", window.low, window.sr_low), ("upper", window.sr_high, window.high)):
        part = data.take((data.mass >= low) & (data.mass < high))
        edges = [low, *np.quantile(part.mass, [1 / 3, 2 / 3]).tolist(), high]
        own = dict(zip(("low", "sr_low", "sr_high", "high"), edges, strict=True))
        config = config.model_copy(update={"window": window.model_copy(update=own), "blind": False})
        here = {"sideband": name, "refused": ""} | own
        try:
            found, scores = search_table(part, config, **given)
        except UserError as error:
            rows.append(here | {"refused": str(error)})
            continue
        rows += [here | {OBSERVED.get(k, k): v for k, v in row.items()} for row in found.rows]
        tables.append(scores.append_column("sideband", pa.array([name] * len(scores))))
    table = pa.concat_tables(tables, promote_options="default")
    return Result([row | {"signal": VALIDATION} for row in rows], tables={VALIDATION: table})
