"""The picture of the README: significance against the cut, with a signal and without."""

from __future__ import annotations

from raypipe.report.style import CYCLE, new_figure, svg
from tests.conftest import ROOT
from tests.readme.contrastive import SHOWN, found, percent, points
from tests.readme.parts import record, widening

PICTURE = ROOT / "configs" / "contrastive" / "significance.svg"


def drawn() -> str:
    """The SVG, from tests/records/contrastive_first_look.json: the same bytes for the same record."""
    study = record("contrastive_first_look")
    cuts = points(study["results"])
    figure, (axis,) = new_figure(1, 7.0, 3.6)
    axis.axhspan(-1, 1, color="grey", alpha=0.12, lw=0)
    axis.axhline(5, color="grey", ls=":", lw=0.8)
    for k, name in enumerate(SHOWN):
        mine = found(study["results"], signal=name, strength=1.0, embedding="id", method="cathode")
        entries = [mine[0]["z_before"], *(row["z_after"] for row in mine)]
        wider = widening(mine[0]["instances"], study)
        x = [i - 0.04 + 0.08 * k for i in range(len(entries))]
        style = {"fmt": "o-", "ms": 5, "lw": 1.2, "color": CYCLE[k], "label": f"{name} injected at 1σ"}
        axis.errorbar(x, [e["mean"] for e in entries], [e["error"] * wider for e in entries], **style)
    for null in study["null"]:
        x = 1 + cuts.index(null["working_point"])
        label = "nothing injected" if x == 1 else None
        axis.plot([x + 0.12] * len(null["z"]), null["z"], ".", ms=4, color="black", alpha=0.4)
        wider = widening(null["instances"], study)
        axis.errorbar(x, null["mean"], null["error"] * wider, fmt="s", ms=5, color="black", label=label)
    axis.set_xticks(range(1 + len(cuts)), ["all events", *(f"{percent(p)} of the background kept" for p in cuts)])
    axis.set(ylabel="significance z", xlim=(-0.3, len(cuts) + 0.4))
    axis.legend(loc="upper left", fontsize=9)
    axis.tick_params(axis="x", which="minor", bottom=False, top=False)
    return svg(figure, "raypipe")
