"""Blind searches of recorded data: ``looks.json`` of the run folder, a list that only grows, of ``blind`` searches that
began, and of each ``look``, from which on the signal region may be searched with exactly that configuration, code and
data. Anything else is blind again."""

import datetime
import getpass
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from raypipe.errors import UserError
from raypipe.files import digest, file_digest, read_json, write_json
from raypipe.kinds import KINDS, resolve
from raypipe.search.result import DATA, Trial

FROZEN = {"search": "search", "config_hash": "configuration", "code": "code", "data": "recorded data"}


def opened(config: Any) -> tuple[Any, list[str], dict[str, Any]]:
    """The configuration with ``blind`` as the looks of its run folder say, that in words, and what `note` writes down.

    Nothing is said where no recorded data are searched. ``blind: false`` after a blind search is a `UserError`.
    """
    if not (paths := getattr(config, "recorded", [])):
        return config, [], {}
    code = resolve(KINDS[config.search].search).code()
    data = digest([file_digest(path) if Path(path).is_file() else None for path in paths])
    frozen = {"search": config.search, "config_hash": config.physics_hash(), "code": code, "data": data}
    told, how = _read(config.output), f'to look: raypipe unblind {config.output} --reason "..."'
    looks = [one for one in told if one["what"] == "look"]
    seen, before = config.model_copy(update={"blind": False}), f"looks before: {len(looks)}"
    if same := [one for one in looks if frozen.items() <= one.items()]:
        return seen, [f"unblinded {_by(same[0])}"], {}
    if config.blind is False:
        if len(told) > len(looks):
            raise UserError(f"blind = false: the search in {config.output} began blind; {how}")
        return seen, [f"not blind (blind: false), {before}"], {"what": "look", **frozen, "reason": "blind: false"}
    changed = " and ".join(word for name, word in FROZEN.items() if looks and looks[-1][name] != frozen[name])
    said = f"blind{changed and f' again ({changed} changed since the last look)'}: nothing of the signal region is told"
    return config.model_copy(update={"blind": True}), [f"{said}; {before}; {how}"], {"what": "blind", **frozen}


def note(folder: str | Path, entry: dict[str, Any], trials: Iterable[Trial]) -> None:
    """Write down, before ``trials`` run, that a blind search begins, or that ``blind: false`` looks at the data."""
    told, looks = _read(folder), any(trial.signal == DATA for trial in trials)
    if entry and (looks or entry["what"] == "blind") and not (told and entry.items() <= told[-1].items()):
        _append(folder, entry)


def unblind(folder: str | Path, reason: str) -> str:
    """Freeze the last blind search of a run folder and allow to look at it (else a `UserError`); says who did."""
    told = _read(folder)
    began = [one for one in told if one["what"] == "blind"]
    if not began or not reason.strip():
        raise UserError(f"{folder}: " + ("an empty --reason" if began else "no search began blind here"))
    frozen = {name: began[-1][name] for name in FROZEN}
    if same := [one for one in told if one["what"] == "look" and frozen.items() <= one.items()]:
        raise UserError(f"{folder}: already unblinded {_by(same[0])}")
    if (now := resolve(KINDS[frozen["search"]].search).code()) != frozen["code"]:
        changed = f"the code changed since this search was run blind ({frozen['code']} then, {now} now)"
        raise UserError(f"{folder}: {changed}: run it blind again before you look")
    return _by(_append(folder, {"what": "look", **frozen, "reason": reason.strip()}))


def _read(folder: str | Path) -> list[dict[str, Any]]:
    return read_json(path) if (path := Path(folder) / "looks.json").is_file() else []


def _by(look: Mapping[str, Any]) -> str:
    return f'by {look["user"]} at {look["time"]}, reason "{look["reason"]}", looks before: {look["looks_before"]}'


def _append(folder: str | Path, entry: dict[str, Any]) -> dict[str, Any]:
    told, now = _read(folder), datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container whose user has no name
        user = f"uid {os.getuid()}"
    entry = entry | {"user": user, "time": now, "looks_before": sum(one["what"] == "look" for one in told)}
    write_json(Path(folder) / "looks.json", [*told, entry])
    return entry
