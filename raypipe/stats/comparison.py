"""Statistics that say how different data and reference are, from a classifier's scores (paper B, section 3).

A score f is the network's probability of `data` (BCE) or its log-likelihood ratio ln p(data)/p(reference) (MLC).
"""

import numpy as np
from scipy import stats

from raypipe.stats.roc import weighted_auc

STATISTICS = ("mean_loss", "mean_score", "max_score", "std_score", "auc", "likelihood_ratio")
"""Columns of a result; the first four are the paper's."""

SMALL_IS_ANOMALOUS = frozenset({"mean_loss"})
"""Of all others a large value speaks against the background-only hypothesis."""


def total_loss(scores: np.ndarray, is_data: np.ndarray, weights: np.ndarray, loss: str) -> float:
    """Loss summed over events.

    BCE (paper B, 3.1): ``- sum_data w ln f - sum_reference w ln(1 - f)``; MLC (3.2 with its sign mended):
    ``sum_reference w (e^f - 1) - sum_data w f``.
    """
    data, reference = scores[is_data], scores[~is_data]
    w_data, w_reference = weights[is_data], weights[~is_data]
    if loss == "mlc":
        return float((w_reference * np.expm1(reference)).sum() - (w_data * data).sum())
    tiny = np.finfo(float).tiny
    return float(
        -(w_data * np.log(np.maximum(data, tiny))).sum() - (w_reference * np.log(np.maximum(1 - reference, tiny))).sum()
    )


def mean_loss(scores: np.ndarray, is_data: np.ndarray, weights: np.ndarray, loss: str) -> float:
    """`total_loss` over the number of events of both classes."""
    return total_loss(scores, is_data, weights, loss) / len(scores)


def likelihood_ratio(scores: np.ndarray, is_data: np.ndarray, weights: np.ndarray, loss: str) -> float:
    """``t = 2 [ sum_data f - sum_reference w (e^f - 1) ]`` (1806.02350, equation 16), with ln f/(1 - f) for BCE."""
    if loss == "bce":
        clipped = np.clip(scores, 1e-12, 1 - 1e-12)
        scores = np.log(clipped) - np.log1p(-clipped)
    return -2.0 * total_loss(scores, is_data, weights, "mlc")


def compute(scores: np.ndarray, is_data: np.ndarray, weights: np.ndarray, loss: str) -> dict[str, float]:
    """All of `STATISTICS`; the area under the ROC curve is the alternative named in paper B, section 3."""
    data = scores[is_data]
    return {
        "mean_loss": mean_loss(scores, is_data, weights, loss),
        "mean_score": float(data.mean()),
        "max_score": float(data.max()),
        "std_score": float(data.std()),
        "auc": weighted_auc(scores, is_data, weights)[0],
        "likelihood_ratio": likelihood_ratio(scores, is_data, weights, loss),
    }


def asymptotic_comparison(t: np.ndarray) -> dict[str, float]:
    """Compare the likelihood ratios of null data sets with a chi-squared distribution (Wilks; paper B, section 4).

    Returns ``degrees``, estimated by the mean of t, ``variance_ratio`` (variance over twice the mean; 1 for
    chi-squared) and ``ks_p`` of the Kolmogorov-Smirnov test (optimistic, as one parameter was estimated).
    """
    t = np.asarray(t, dtype=float)
    degrees = float(t.mean())
    if degrees <= 0:
        return {"degrees": degrees, "variance_ratio": float("nan"), "ks_p": 0.0}
    return {
        "degrees": degrees,
        "variance_ratio": float(t.var(ddof=1) / (2 * degrees)),
        "ks_p": float(stats.kstest(t, stats.chi2(degrees).cdf).pvalue),
    }
