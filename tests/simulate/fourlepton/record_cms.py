"""Write tests/records/cms_4l.json: the four-lepton spectrum of CMS over our simulation of it.

``python -m tests.simulate.fourlepton.record_cms EVENTS``, with the event folder of `configs/fourlepton/cms_run1.yaml`.
"""

from __future__ import annotations

import sys
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np

from raypipe.events.masses import Masses, load_masses
from raypipe.events.spectra import Spectrum
from raypipe.files import read_json, write_json
from raypipe.stats.hunt import Hunt, hunt
from raypipe.stats.widths import width
from tests.conftest import ROOT

SPECTRUM = ROOT.parent / "shared" / "data" / "cms_4lepton" / "m4l_70_181_normalised.json"
WINDOW, HIGGS = (70.0, 181.0), 125.0
ORDERS = (0, 1, 2)  # Degrees of the polynomial that may correct the simulated shape


def asked(reference: Masses | Spectrum, order: int, **more: Any) -> Hunt:
    """A peak of 2 GeV, as wide as the published Higgs, over a simulated spectrum of free yield."""
    return Hunt(window=WINDOW, widths=[width("2")], reference=reference, reference_order=order, **more)


def hunted(data: Spectrum, reference: Masses | Spectrum, order: int, signal: float) -> dict[str, Any]:
    """The largest excess; at the Higgs boson's mass yield, strength and limits [events], and limits beside it."""
    row = hunt(data, asked(reference, order, scan_range=(106, 175), toys=2000)).row
    at = {m: hunt(data, asked(reference, order, scan_range=(m - 1e-3, m + 1e-3), points=1)) for m in masses()}
    here = at[HIGGS].signal
    kept = {name: row["best"][name] for name in ("mass", "s", "s_err", "z")}
    return kept | {
        "order": order,
        "chi2": row["chi2_background_only"],
        "ndf": row["ndf"],
        "p_global": row["global"]["toys"]["p"],
        "higgs": {"s": here.s, "s_err": here.s_err, "z": here.z, "mu": here.s / signal, "mu_err": here.s_err / signal},
        "limits": [[m, f.signal.limit.observed, f.signal.limit.expected] for m, f in at.items()],
    }


def masses() -> list[float]:
    return [float(m) for m in np.arange(110, 176, 5)]


def main(events: str) -> None:
    """Hunt over our ZZ and over CMS's, with and without a freedom of the shape."""
    published = read_json(SPECTRUM)
    signal = float(sum(published["HZZ125"]["values"]))
    data = load_masses(SPECTRUM, column="data")
    ours = load_masses(Path(events) / "search" / "qq4l.parquet", column="m_4l")
    theirs = load_masses(SPECTRUM, column="ZZ+TTbar+DY")
    record = {"date": date.today().isoformat(), "window": WINDOW, "observed": float(data.counts.sum())}
    record |= {"signal_expected": signal, "simulated": len(ours.values)}
    for name, reference in (("ours", ours), ("published", theirs)):
        record[name] = [hunted(data, reference, order, signal) for order in ORDERS]
        for row in record[name]:
            print(name, {k: v for k, v in row.items() if k != "limits"})
    write_json(ROOT / "tests" / "records" / "cms_4l.json", record)


if __name__ == "__main__":
    main(*sys.argv[1:])
