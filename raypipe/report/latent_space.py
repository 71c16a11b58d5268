"""Pictures of the latent space itself: t-SNE maps and confusion matrices (paper C, figures 2 and 8)."""

from __future__ import annotations

from collections.abc import Mapping

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from raypipe.report.style import new_figure
from raypipe.search.confusion import Confusion

Named = Mapping[int, str]


def tsne_map(latent: np.ndarray, seed: int, perplexity: float = 30.0) -> np.ndarray:
    """Two-dimensional t-SNE coordinates (n, 2) of latents (n, d), standardised first (scikit-learn, Barnes-Hut)."""
    from sklearn.manifold import TSNE

    scaled = (latent - latent.mean(0)) / (latent.std(0) + 1e-9)
    return TSNE(perplexity=perplexity, init="pca", random_state=seed % 2**32).fit_transform(scaled.astype(np.float64))


def tsne_figure(maps: Mapping[str, tuple[np.ndarray, np.ndarray]], names: Named) -> Figure:
    """One panel an embedding: coordinates (n, 2) coloured by process group."""
    figure, axes = new_figure(len(maps), 1, 5.0, 4.6)
    colours = mpl.color_sequences["tab20"]
    for axis, (title, (points, groups)) in zip(np.atleast_1d(axes), maps.items(), strict=True):
        for k, group in enumerate(sorted(set(groups.tolist()), reverse=True)):
            mine = groups == group
            axis.plot(*points[mine].T, ".", ms=2, color=colours[k % 20], label=names[group])
        axis.set(title=title, xticks=[], yticks=[])
    np.atleast_1d(axes)[-1].legend(fontsize=7, markerscale=4, loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


def confusion_figure(matrices: Mapping[str, Confusion], names: Named) -> Figure:
    """Confusion matrices side by side, rows normalised to one."""
    figure, axes = new_figure(len(matrices), 1, 5.4, 5.0)
    for axis, (title, confusion) in zip(np.atleast_1d(axes), matrices.items(), strict=True):
        labels = [names[g] for g in confusion.groups]
        axis.imshow(confusion.matrix, vmin=0, vmax=1, cmap="Blues")
        for (i, j), value in np.ndenumerate(confusion.matrix):
            if value >= 0.005:
                colour = "white" if value > 0.5 else "black"
                axis.text(j, i, f"{value:.2f}", ha="center", va="center", fontsize=6, color=colour)
        axis.set_xticks(range(len(labels)), labels, rotation=90, fontsize=7)
        axis.set_yticks(range(len(labels)), labels, fontsize=7)
        axis.set(title=f"{title}: mean diagonal {confusion.diagonal:.3f}", xlabel="called", ylabel="true")
    return figure
