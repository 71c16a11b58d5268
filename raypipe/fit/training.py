"""What all trainings have in common: epochs, and a state after each from which they go on as if never interrupted."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

OnEpoch = Callable[[dict[str, float]], None]  # Called with each epoch's record


class Training(Protocol):
    """A training in progress."""

    epoch: int  # Epochs done

    @property
    def finished(self) -> bool:
        """Whether there is no further epoch."""

    def run_epoch(self) -> dict[str, float]:
        """Train for one epoch; its record."""

    def state(self) -> dict[str, Any]:
        """Tensors and plain values, as `torch.load(weights_only=True)` reads them."""

    def load_state(self, state: dict[str, Any]) -> None:
        """The inverse of `state`, in a training that was just made of the same inputs."""


def finish(training: Training, on_epoch: OnEpoch | None = None) -> None:
    """Run all epochs that are left."""
    while not training.finished:
        record = training.run_epoch()
        if on_epoch:
            on_epoch(record)
