"""What every part of a configuration is made of."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Literal, get_args, get_origin

from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationInfo, field_validator

from raypipe.errors import redact, redact_all


class Section(BaseModel):
    """A part of the configuration: unknown keys are refused, values cannot change after reading.

    A boolean is neither a number nor a name. ``no`` for a key that may be left out means that it is left out.
    """

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

    ``NAME`` stands for a key of a mapping, ``N`` for a place in a list. A required key has the default `...`. ``of`` is
    the default of the whole section, where it differs from those of its keys.
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
