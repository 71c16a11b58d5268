"""Where a search runs and who watches it; nothing here can change a number."""

from __future__ import annotations

from pydantic import Field

from raypipe.config.base import Section


class Resources(Section):
    """What Ray may use."""

    cpus: int | None = Field(None, ge=1)
    """Cores of an embedded local Ray; all of the machine when not given. [default]"""
    train_workers: int = Field(1, ge=1)
    """Ray Train workers of the encoder, and Ray actors of large trees (`classifier.engine`). [default]"""
    gpu: bool = False
    """One GPU a Train worker, and one a chunk of a multilepton search without `trial_gpus`. [default]"""
    trial_cpus: float = Field(1.0, gt=0)
    """Cores of one search trial, also its number of BLAS, OMP and XGBoost threads. [default]"""
    object_store_gib: float = Field(0.5, gt=0)
    """Object store of an embedded local Ray; with a cluster, what the plan of a scan takes for that of a node.
    [default]"""
    resident_gib: float | None = Field(None, ge=0)
    """Memory that the encoder's training events may take before they are streamed from files; a quarter of the machine
    when not given. Batches are the same either way. [default]"""
    trial_gpus: float = Field(0.0, ge=0)
    """GPUs of one search trial; below one, several trials share a GPU. [default]"""
    trial_timeout: float | None = Field(None, gt=0)
    """Seconds after which a trial counts as hanging: its process is ended, its stack kept, and it is tried again.
    [default: none]"""
    pack_seconds: float = Field(60.0, ge=0)
    """Short trials are packed into tasks of about this length, seconds; a multilepton search has `chunk` instead.
    [default]"""
    max_failures: int = Field(2, ge=0)
    """Restarts of an encoder training or a trial whose process dies, hangs or cannot read. [default]"""
    storage: str | None = None
    """Where the ledger is: a path or a URL (file, s3, gs, ...); `ledger` in the output folder when not given.
    [default]"""
    artefacts: str | None = None
    """Folder that runs share: simulated events, encoders with their latents, and flows are looked up there by the hash
    of all that determines them, and left there for others; each run keeps to its output folder when not given.
    [default]"""
    price_cpu_hour: float = Field(0.0, ge=0)
    """Price of one core for one hour, for the cost of a scan. [default: free]"""
    price_gpu_hour: float = Field(0.0, ge=0)
    """Price of one GPU for one hour. [default: free]"""


class Tracking(Section):
    """MLflow."""

    enabled: bool = True
    """Record runs at all. [default]"""
    experiment: str = "raypipe"
    """Experiment name. [default]"""
    uri: str | None = None
    """Tracking URI; MLFLOW_TRACKING_URI wins; an SQLite file in the output folder when neither is given. [default]"""
