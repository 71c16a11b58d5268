"""The detector response card: the numbers of a detector as data (``cards/*.yaml``)."""

from pathlib import Path

import numpy as np
import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from raypipe.config.load import joined
from raypipe.errors import UserError

CARDS = Path(__file__).with_name("cards")


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False)


class Region(_Part):
    """Something valid for |eta| up to `eta` and above the previous region's edge."""

    eta: float = Field(gt=0)


class Cells(Region):
    """Cell size of a calorimeter."""

    d_eta: float = Field(gt=0)
    d_phi_degrees: int = Field(ge=1, le=360)


class EnergyResolution(Region):
    """sigma_E = (scale + curvature (|eta| - centre)^2) sqrt((constant E)^2 + stochastic^2 E + noise^2), GeV."""

    constant: float = Field(ge=0)
    stochastic: float = Field(ge=0)
    noise: float = Field(ge=0)
    scale: float = Field(1.0, ge=0)
    curvature: float = 0.0
    centre: float = 0.0


class MomentumResolution(Region):
    """sigma_pT / pT = sqrt(constant^2 + (slope pT)^2)."""

    constant: float = Field(ge=0)
    slope: float = Field(ge=0)


class Step(_Part):
    """A value from `pt` upwards."""

    pt: float = Field(ge=0)
    value: float = Field(ge=0, le=1)


class Steps(Region):
    """Efficiency as a step function of pT."""

    steps: list[Step] = Field(min_length=1)


class Efficiency(Region):
    """A constant efficiency."""

    value: float = Field(ge=0, le=1)


class Calorimeter(_Part):
    """One calorimeter: granularity, resolution, zero suppression."""

    cells: list[Cells] = Field(min_length=1)
    resolution: list[EnergyResolution] = Field(min_length=1)
    min_energy: float = Field(ge=0)
    min_significance: float = Field(ge=0)


class Tracks(_Part):
    """Tracking efficiencies."""

    eta: float = Field(gt=0)
    hadron: list[Steps]
    electron: list[Steps]
    muon: list[Steps]


class Identification(_Part):
    """A reconstructed photon, electron or muon."""

    min_pt: float = Field(ge=0)
    max_isolation: float = Field(gt=0)
    efficiency: list[Efficiency] = Field(min_length=1)


class Scale(_Part):
    """Jet energy scale sqrt((a - b |eta|)^2 / pT + 1)."""

    a: float
    b: float


class FatJets(_Part):
    """Large-radius jets."""

    radius: float = Field(gt=0)
    min_pt: float = Field(gt=0)
    max_eta: float = Field(gt=0)


class Jets(FatJets):
    """Jets with their scale."""

    scale: Scale


class TagCurve(_Part):
    """height tanh(slope pT) scale / (1 + falloff pT)."""

    height: float
    slope: float
    scale: float
    falloff: float


class Mistag(_Part):
    """constant + slope pT."""

    constant: float
    slope: float


class BTag(_Part):
    """Flavour tagging."""

    eta: float
    cone: float
    bottom: TagCurve
    charm: TagCurve
    light: Mistag
    tagged_power: float = Field(gt=0)
    untagged_power: float = Field(gt=0)


class Card(_Part):
    """A whole detector. Photons within ``electron_cone`` of an electron are part of it (four-lepton reconstruction)."""

    name: str
    ecal: Calorimeter
    hcal: Calorimeter
    long_lived_ecal_fraction: float = Field(ge=0, le=1)
    tracks: Tracks
    electron_momentum: list[MomentumResolution]
    muon_momentum: list[MomentumResolution]
    electron_cone: float = Field(0.0, ge=0)
    isolation_cone: float = Field(gt=0)
    isolation_min_pt: float = Field(ge=0)
    photon: Identification
    electron: Identification
    muon: Identification
    photon_ecal_fraction: float = Field(ge=0, le=1)
    jets: Jets
    fat_jets: FatJets
    btag: BTag


def load_card(name: str) -> Card:
    """The card ``cards/<name>.yaml``; an unknown or invalid one is a `UserError`."""
    known = sorted(path.stem for path in CARDS.glob("*.yaml"))
    if name not in known:
        raise UserError(f"simulate.card: unknown detector card {name!r} (known: {', '.join(known)})")
    return parse_card((CARDS / f"{name}.yaml").read_text(encoding="utf-8"), f"{name}.yaml")


def parse_card(text: str, source: str) -> Card:
    """A card from YAML ``text``, on top of the one that it ``extends``; errors name ``source``, key and problem."""
    try:
        values = yaml.safe_load(text)
        if isinstance(values, dict) and "extends" in values:
            base = load_card(str(values.pop("extends"))).model_dump()
            values = joined(base, values)
        return Card.model_validate(values)
    except yaml.YAMLError as error:
        raise UserError(f"{source}: not valid YAML: {' '.join(str(error).split())}") from error
    except ValidationError as error:
        first = error.errors()[0]
        raise UserError(f"{source}: {'.'.join(map(str, first['loc']))}: {first['msg']}") from error


def by_region(regions: list, abs_eta: np.ndarray, *names: str) -> tuple[np.ndarray, ...]:
    """For each |eta| the attributes ``names`` of its region; zero beyond the last one."""
    index = np.searchsorted([region.eta for region in regions], abs_eta, "left")
    return tuple(np.array([*(getattr(region, name) for region in regions), 0.0])[index] for name in names)


def step_efficiency(regions: list[Steps], abs_eta: np.ndarray, pt: np.ndarray) -> np.ndarray:
    """Efficiency of a list of `Steps` at each (|eta|, pT); zero outside."""
    result = np.zeros(len(pt))
    region_of = np.searchsorted([region.eta for region in regions], abs_eta, "left")
    for number, region in enumerate(regions):  # a handful of regions, not particles
        values = np.array([0.0, *(step.value for step in region.steps)])
        found = values[np.searchsorted([step.pt for step in region.steps], pt, "right")]
        result = np.where(region_of == number, found, result)
    return result
