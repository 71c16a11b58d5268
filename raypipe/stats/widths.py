"""Widths of a hunted peak, and the masses at which it is looked for."""

import math
from dataclasses import dataclass

import numpy as np

from raypipe.errors import UserError
from raypipe.events.masses import Masses
from raypipe.events.spectra import Spectrum

MOST_POINTS = 1000


@dataclass(frozen=True)
class Width:
    """Width of the hunted peak in the unit of the masses, or a share of its mass if ``relative``."""

    value: float
    relative: bool = False

    def at(self, mass: float) -> float:
        """One standard deviation at a mass."""
        return self.value * mass if self.relative else self.value

    @property
    def label(self) -> str:
        return f"{100 * self.value:g}%" if self.relative else f"{self.value:g}"


def width(text: str) -> Width:
    """``1.5`` or ``2%`` of the mass."""
    relative = text.strip().endswith("%")
    try:
        value = float(text.strip().rstrip("%")) / (100 if relative else 1)
    except ValueError as problem:
        raise UserError(f"width {text!r}: write a number, or a share of the mass such as 2%") from problem
    if not (math.isfinite(value) and value > 0):
        raise UserError(f"width {text!r} is not positive")
    return Width(value, relative)


def default_widths(window: tuple[float, float], data: Masses | Spectrum) -> list[Width]:
    """A 60th, 30th and 15th of the window, none narrower than a bin of a histogram."""
    span = window[1] - window[0]
    least = 0.0 if isinstance(data, Masses) else float(np.median(data.high - data.low))
    return [Width(float(f"{w:.3g}")) for w in dict.fromkeys(max(span / part, least) for part in (60, 30, 15))]


def grid(low: float, high: float, narrowest: Width, points: int | None) -> np.ndarray:
    """Scan masses: half a width apart unless a number is given; equal ratios for a relative width."""
    if points is not None:
        if points < 1:
            raise UserError(f"{points} scan points: need at least one")
        number = points
    elif narrowest.relative:
        number = math.ceil(math.log(high / low) / math.log1p(narrowest.value / 2)) + 1
    else:
        number = math.ceil((high - low) / (narrowest.value / 2)) + 1
    if number > MOST_POINTS:
        raise UserError(f"{number} scan points (half a width apart): give fewer with --points, or a wider peak")
    return np.geomspace(low, high, number) if narrowest.relative else np.linspace(low, high, number)
