"""Significance of a count over an uncertain background; a p-value in words."""

import math
from collections.abc import Mapping
from typing import Any


def counting_significance(observed: float, background: float, error: float = 0.0) -> float:
    """Signed significance, in sigma, of ``observed`` events over ``background`` +- ``error``; a deficit is negative.

    Profile-likelihood ratio with the background from an auxiliary Poisson count of the same relative error:

        Z^2 = 2 [ n ln( n (b + s^2) / (b^2 + n s^2) ) - b^2/s^2 ln( 1 + s^2 (n - b) / (b (b + s^2)) ) ]

    Li & Ma (1983), equation 17, with n_off = b^2/s^2 (Cousins, Linnemann and Tucker, physics/0702156); for ``error =
    0``, ``sqrt(2 [n ln(n/b) - (n - b)])``. Raises `ValueError`: b not positive, negative or non-finite input.
    """
    n, b, s = float(observed), float(background), float(error)
    if not (math.isfinite(n) and math.isfinite(b) and math.isfinite(s)) or n < 0 or s < 0:
        raise ValueError(f"counting_significance needs finite n >= 0, b > 0, error >= 0; got {n}, {b} +- {s}")
    if b <= 0:
        raise ValueError(f"counting_significance needs a positive background, got {b}")
    if s * s < 1e-9 * b:  # beside the Poisson error, not beside b: ten to the fourteenth events have errors of a ppm
        half = (n * math.log1p((n - b) / b) if n else 0.0) - (n - b)
    else:
        v = s * s
        first = n * math.log1p(b * (n - b) / (b * b + n * v)) if n else 0.0
        half = first - b * b / v * math.log1p(v * (n - b) / (b * (b + v)))
    return math.copysign(math.sqrt(max(0.0, 2 * half)), n - b)


def mean_and_error(values: list[float], overlap: float = 0.0) -> tuple[float, float | None]:
    """Mean and standard error of the mean; no error from fewer than two values.

    ``overlap``: share of its events that one value has in common with another, hence the correlation rho of counts. The
    spread over k values then shows sigma sqrt(1 - rho), while their mean varies by sigma sqrt(rho + (1 - rho)/k):
    however many, they know no more than 1/rho independent ones. Raises `ValueError`: overlap not in [0, 1), no values.
    """
    n = len(values)
    if not n:
        raise ValueError("mean of no values")
    if not 0 <= overlap < 1:
        raise ValueError(f"mean_and_error needs an overlap in [0, 1), got {overlap}")
    mean = math.fsum(values) / n
    if n == 1:
        return mean, None
    variance = math.fsum((v - mean) ** 2 for v in values) / (n - 1)
    return mean, math.sqrt(variance * (overlap / (1 - overlap) + 1 / n))


def asimov_significance(signal: float, background: float, error: float = 0.0) -> float:
    """Median discovery significance of ``signal`` over ``background`` +- ``error`` (absolute), in sigma.

    Without error sqrt(2 [(s+b) ln(1 + s/b) - s]) (1007.1727, equation 97); with it (G. Cowan, "Discovery sensitivity
    for a counting experiment with background uncertainty", 2012, equation 20)

        Z^2 = 2 { (s+b) ln[ (s+b)(b+v) / (b^2 + (s+b) v) ] - b^2/v ln[ 1 + v s / (b (b+v)) ] },   v = error^2
    """
    if signal < 0:
        raise ValueError(f"asimov_significance needs a signal >= 0, got {signal}")
    return counting_significance(signal + background, background, error)


def in_words(found: Mapping[str, Any]) -> str:
    """``p < 0.01`` or ``p = 0.012 ± 0.003, Z 2.26``."""
    if found["is_upper_bound"]:
        return f"p < {found['p']:.3g}"
    error = "" if found.get("p_err") is None else f" ± {found['p_err']:.2g}"
    return f"p = {found['p']:.3g}{error}" + ("" if found["z"] is None else f", Z {found['z']:.2f}")
