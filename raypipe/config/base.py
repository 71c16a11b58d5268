"""What every part of a configuration is made of."""

from collections.abc import Callable, Iterator
from typing import Any, Literal, get_args, get_origin

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationInfo, field_validator

from raypipe.errors import redact, redact_all


class Section(BaseModel):
    """A part of the configuration: unknown keys are refused, values fixed; a boolean is neither number nor name."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False, validate_default=True
    )

    def shown(self) -> dict[str, Any]:
        """All values, JSON-ready, as pages and records may show them: without the passwords of URIs."""
        return redact_all(self.model_dump(mode="json"))

    def __repr_args__(self) -> list[tuple[str | None, Any]]:
        return [(name, redact(value) if isinstance(value, str) else value) for name, value in super().__repr_args__()]

    @field_validator("*", mode="before")
    @classmethod
    def _booleans_are_neither_numbers_nor_names(cls, value: Any, info: ValidationInfo) -> Any:
        annotation = cls.model_fields[str(info.field_name)].annotation
        kinds = leaves(annotation)
        if bool in kinds:
            return value
        if value is False and type(None) in kinds:
            return None
        parts = [value] if section_of(annotation) else value  # a section looks after its own values
        parts = parts.values() if isinstance(parts, dict) else parts if isinstance(parts, list | tuple) else [parts]
        if any(isinstance(part, bool) for part in parts):
            hint = ", no section" if section_of(annotation) else ", not numbers"
            hint = '; a name of that kind needs quotes, such as "yes"' if kinds & {str, Literal} else hint
            raise ValueError(f"yes, no, on, off, true and false are booleans{hint}")
        return value


def refusing(wrong: Callable[[list[Any]], list[Any]], message: str) -> AfterValidator:
    """Refuses a list in which ``wrong`` finds values; the first of them stands for ``{}`` in the message."""

    def check(values: list[Any]) -> list[Any]:
        if found := wrong(values):
            raise ValueError(message.format(found[0]))
        return values

    return AfterValidator(check)


def twice(values: list[Any]) -> list[Any]:
    """What stands twice."""
    return sorted({str(value) for value in values if values.count(value) > 1})


def not_positive(values: list[Any]) -> list[Any]:
    """The smallest first."""
    return sorted(value for value in values if value <= 0)


def leaves(annotation: Any) -> set[Any]:
    """The plain types in an annotation such as ``list[str | int] | None``; `Literal` stands for any literal."""
    if get_origin(annotation) is Literal:
        return {Literal}
    parts = get_args(annotation)
    return {annotation} if not parts else {leaf for part in parts for leaf in leaves(part)}


def section_of(annotation: Any) -> type[Section] | None:
    """The section in an annotation such as ``Files | None`` or ``dict[str, SampleSize]``."""
    kinds = (kind for kind in leaves(annotation) if isinstance(kind, type) and issubclass(kind, Section))
    return next(kinds, None)


def fields(model: type[Section], prefix: str = "", of: Section | None = None) -> Iterator[tuple[str, Any, Any]]:
    """Dotted name, `pydantic` field and default of every key of a configuration, those of its sections included.

    ``NAME``: a key of a mapping, ``N``: a place in a list. `...`: required. ``of``: the default of the whole section.
    """
    for name, info in model.model_fields.items():
        inner, key = section_of(info.annotation), f"{prefix}{name}"
        own = ... if info.is_required() else info.get_default(call_default_factory=True)
        default = own if of is None else getattr(of, name)
        if inner is None:
            yield key, info, default
            continue
        kinds = {get_origin(part) for part in (info.annotation, *get_args(info.annotation))}
        step = "NAME." if dict in kinds else "N." if list in kinds else ""
        yield from fields(inner, f"{key}.{step}", default if isinstance(default, inner) else None)


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
    """Restarts of an encoder training or a trial whose process dies, hangs or cannot read; new tries of `raypipe read`
    after an I/O error behind a URL, after 1, 2, 4, ... seconds. [default]"""
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
