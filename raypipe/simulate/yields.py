"""Reference cross sections (``yields.yaml``, each with its source): what one event of a sample stands for."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from raypipe.errors import UserError

FB_PER_PB = 1000.0
BEAM_ENERGY = 13_000.0  # GeV, of both beams together: what ``cross_section_pb`` stands for


@dataclass(frozen=True)
class Reference:
    """Cross section x branching ratio of one sample (None: the generator's own), a factor on it, its source."""

    cross_section_fb: float | None
    k_factor: float
    source: str

    def value(self, generator_fb: float) -> float:
        """Cross section [fb] including branching ratio and K factor, before the event selection."""
        return (generator_fb if self.cross_section_fb is None else self.cross_section_fb) * self.k_factor


@cache
def _entries() -> dict[str, Any]:
    return yaml.safe_load(Path(__file__).with_name("yields.yaml").read_text(encoding="utf-8"))


def reference(sample: str, beam_energy: float = BEAM_ENERGY) -> Reference:
    """The normalisation of ``sample`` at ``beam_energy`` [GeV]: its entry of ``yields.yaml``, else one fb (signals)."""
    values = _entries()
    entry = values["samples"].get(sample, values["signal"])
    cross_section = entry["cross_section_pb"]
    source = entry["source"]
    if beam_energy != BEAM_ENERGY and sample in values["samples"] and cross_section != "generator":
        others = entry.get("cross_section_pb_at", {})
        if beam_energy not in others:
            known = ", ".join(f"{energy:g}" for energy in (*others, BEAM_ENERGY))
            raise UserError(
                f"sample {sample}: yields.yaml has no cross section at {beam_energy:g} GeV (there is one at {known})"
            )
        cross_section = others[beam_energy]
    if cross_section == "generator":
        return Reference(None, float(entry.get("k_factor", 1.0)), source)
    branching = 1.0
    if "branching_ratio" in entry:
        ratio = values["branching_ratios"][entry["branching_ratio"]]
        branching = float(ratio["value"])
        source = f"{source}; BR {branching:g}: {ratio['source']}"
    return Reference(float(cross_section) * FB_PER_PB * branching, float(entry.get("k_factor", 1.0)), source)
