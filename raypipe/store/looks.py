"""Blind searches of recorded data: what is frozen, and who has looked.

``looks.json`` in the run folder is a list that only grows: of ``blind`` searches that began, and of each ``look``, from
which on the signal region of that configuration, code and data may be searched. Anything else is blind again.
"""

from __future__ import annotations

import datetime
import getpass
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from raypipe.errors import UserError
from raypipe.files import digest, file_digest, read_json, write_json
from raypipe.kinds import KINDS, resolve
from raypipe.search.result import DATA, Trial

FROZEN = {"search": "search", "config_hash": "configuration", "code": "code", "data": "recorded data"}
"""What a look holds for, in words."""


def opened(config: Any) -> tuple[Any, dict[str, Any] | None]:
    """The configuration with ``blind`` as the looks of its run folder say, and what is known of them.

    None without recorded data; else `FROZEN`, ``state`` (``blind``, ``unblinded``, ``open`` by ``blind: false``),
    ``looks`` so far, the one that holds, and ``said``. ``blind: false`` after a blind search is a `UserError`.
    """
    if not (paths := getattr(config, "recorded", [])):
        return config, None
    code = resolve(KINDS[config.search].search).code()
    data = digest([file_digest(path) if Path(path).is_file() else None for path in paths])
    frozen = {"search": config.search, "config_hash": config.physics_hash(), "code": code, "data": data}
    told, how = read(config.output), f'to look: raypipe unblind {config.output} --reason "..."'
    looks = [one for one in told if one["what"] == "look"]
    same = next((one for one in looks if frozen.items() <= one.items()), {})
    state = "unblinded" if same else "open" if config.blind is False else "blind"
    if state == "open" and len(told) > len(looks):
        raise UserError(f"blind = false: the search in {config.output} began blind; {how}")
    changed = " and ".join(word for name, word in FROZEN.items() if looks and looks[-1][name] != frozen[name])
    again = f" again ({changed} changed since the last look)" if looks else ""
    said = {
        "unblinded": f"unblinded {by(same) if same else ''}",
        "open": f"not blind (blind: false), {len(looks)} looks before",
        "blind": f"blind{again}: no count, score or figure of the signal region, {len(looks)} looks before; {how}",
    }
    known = same | frozen | {"looks": len(looks), "state": state, "said": said[state]}
    return config.model_copy(update={"blind": state == "blind"}), known


def note(folder: str | Path, known: dict[str, Any] | None, trials: Iterable[Trial]) -> None:
    """Write down, before ``trials`` run, that a blind search begins, or a look by ``blind: false``."""
    state, frozen = (known["state"], {name: known[name] for name in FROZEN}) if known else ("", {})
    began = [one for one in read(folder) if one["what"] == "blind"][-1:]
    if state == "blind" and not any(frozen.items() <= one.items() for one in began):
        _append(folder, {"what": "blind", **frozen})
    elif state == "open" and any(trial.signal == DATA for trial in trials):
        _append(folder, {"what": "look", **frozen, "reason": "blind: false"})


def unblind(folder: str | Path, reason: str) -> dict[str, Any]:
    """Freeze the last blind search of a run folder and allow to look at it; returns the new entry.

    Raises:
        UserError: no reason, no blind search, a search that is unblinded already, or whose code changed.
    """
    told = read(folder)
    began = [one for one in told if one["what"] == "blind"]
    if not began or not reason.strip():
        raise UserError(f"{folder}: " + ("an empty --reason" if began else "no search began blind here"))
    frozen = {name: began[-1][name] for name in FROZEN}
    if same := [one for one in told if one["what"] == "look" and frozen.items() <= one.items()]:
        raise UserError(f"{folder}: already unblinded {by(same[0])}")
    if (now := resolve(KINDS[frozen["search"]].search).code()) != frozen["code"]:
        changed = f"the code changed since this search was run blind ({frozen['code']} then, {now} now)"
        raise UserError(f"{folder}: {changed}: run it blind again before you look")
    return _append(folder, {"what": "look", **frozen, "reason": reason.strip()})


def read(folder: str | Path) -> list[dict[str, Any]]:
    """All entries of ``looks.json``, oldest first."""
    return read_json(path) if (path := Path(folder) / "looks.json").is_file() else []


def by(look: Mapping[str, Any]) -> str:
    """Who, when, why, and how often before, in words."""
    return f'by {look["user"]} at {look["time"]}, reason "{look["reason"]}", {look["looks_before"]} looks before'


def _append(folder: str | Path, entry: dict[str, Any]) -> dict[str, Any]:
    told, now = read(folder), datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    before = sum(one["what"] == "look" for one in told)
    entry |= {"user": getpass.getuser(), "time": now, "looks_before": before}
    write_json(Path(folder) / "looks.json", [*told, entry])
    return entry
