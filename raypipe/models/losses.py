"""Losses of the contrastive encoder (paper C, equation 1)."""

import torch


def supervised_contrastive(
    anchors: torch.Tensor,
    anchor_labels: torch.Tensor,
    others: torch.Tensor | None = None,
    other_labels: torch.Tensor | None = None,
    *,
    first: int = 0,
    temperature: float,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Sum of the supervised contrastive loss over the anchors that have a partner, and their number.

    For anchor i with l2-normalised projection p_i, the loss is ``-1/|P(i)| sum_{j in P(i)} log[ exp(p_i.p_j/tau) /
    sum_{a != i} exp(p_i.p_a/tau) ]``, P(i) being the other events of the same label (2004.11362, equation 2).
    ``anchors``: (n, d) of this worker, rows ``first .. first + n`` of ``others`` (m, d), the global batch.
    """
    if others is None or other_labels is None:
        others, other_labels = anchors, anchor_labels
    n, m = len(anchors), len(others)
    logits = anchors @ others.T / temperature
    itself = torch.arange(n, device=anchors.device)[:, None] + first == torch.arange(m, device=anchors.device)[None, :]
    logits = logits.masked_fill(itself, float("-inf"))
    log_share = logits - torch.logsumexp(logits, dim=1, keepdim=True)
    partner = (anchor_labels[:, None] == other_labels[None, :]) & ~itself
    partners = partner.sum(dim=1)
    # where, not multiplication: the excluded entries are -inf and -inf * 0 is NaN.
    summed = torch.where(partner, log_share, torch.zeros_like(log_share)).sum(dim=1)
    has_partner = partners > 0
    loss = -torch.where(has_partner, summed / partners.clamp(min=1), torch.zeros_like(summed)).sum()
    return loss, has_partner.sum()


def gaussian_kl(mean: torch.Tensor, log_variance: torch.Tensor) -> torch.Tensor:
    """KL divergence of N(mean, exp(log_variance)) from N(0, 1), summed over dimensions: (n, d) -> (n,), in nats."""
    return 0.5 * (mean.square() + log_variance.exp() - 1.0 - log_variance).sum(dim=1)
