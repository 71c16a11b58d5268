"""The search on a user's own feature table around its trials: files, their digests, their events, its windows."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

from scipy import stats

from raypipe import seeds
from raypipe.config.sections import MassWindow
from raypipe.errors import UserError
from raypipe.events.readers.base import check_file
from raypipe.files import file_digest
from raypipe.search.base import Made, Search, plain
from raypipe.search.blinding import VALIDATION, search_sidebands
from raypipe.search.reading import check_columns, collect
from raypipe.search.result import DATA, Result, Stage, Tools, Trial
from raypipe.search.table import SharedFlows, search_table
from raypipe.stats.lookelsewhere import sidak

ENTRY = (
    *("key", "instance", "window_low", "window_high", "verdict", "z_likelihood"),
    *("n_before", "expected_before", "expected_before_error", "z_before"),
)
"""Of the first row of a window, what `together` tells of it."""


class TableSearch(Search):
    """The search on a user's own feature table: one trial, in this process or spread over cores, or one a window."""

    sections: ClassVar[tuple[str, ...]] = (
        *("seed", "window", "windows", "massfit", "flow", "classifier"),
        *("selection", "preprocess", "data", "background", "blind"),
    )
    options: ClassVar[tuple[str, ...]] = ()
    no_effect: ClassVar[str] = "{} has no effect: a search on a table takes what is in the table, as it is"
    report: ClassVar[str] = "raypipe.report.table:table_report"

    @property
    def here(self) -> bool:
        return self.config.windows is None or bool(self.config.blind)

    @property
    def parts(self) -> int:
        """Fits of the classifier; a blind search has two windows."""
        return (2 if self.config.blind else 1) * self.config.classifier.folds * self.config.classifier.ensemble

    def grid(self) -> list[Trial]:
        if self.config.blind:
            return [Trial(VALIDATION, 0.0, 0)]
        return [Trial(DATA, 0.0, number) for number in range(len(regions_of(self.config)))]

    def materials(self, name: str, made: Made) -> dict[str, Any]:
        """Digests of the files, which are there; data are not their own background."""
        digests, data, given = self.digests(), self.config.data, self.config.background
        alike = given.key == data.key and not given.only_label_zero
        of_data = {digests[path]: path for path in data.paths if alike}
        for path in given.paths:
            if digests[path] in of_data:
                raise UserError(
                    f"background.path: {path} holds the data ({of_data[digests[path]]}): name another file, another "
                    "table of it (background.key), or keep its labelled background (background.only_label_zero=true)"
                )
        return {"files": list(digests.values())}

    def digests(self) -> dict[str, str]:
        """Of every file, by its path."""
        paths = [*self.config.data.paths, *self.config.background.paths]
        return {path: file_digest(check_file(path)) for path in paths}

    def inputs(self, name: str, folder: Path, tools: Tools) -> Iterator[Any]:
        """The recorded events, and the independent background sample or None."""
        data, given = self.config.data, self.config.background
        label = data.columns.label if given.only_label_zero else None
        if given.only_label_zero and given.paths and label is None:
            raise UserError("background.only_label_zero needs data.columns.label")
        of_background = data.columns.model_copy(update={"label": label, "weight": given.weight, "event_id": None})
        check_columns(data.paths, data, data.columns)
        check_columns(given.paths, given, of_background)
        yield collect(data.paths, data, data.columns, tools.mapper)
        background = collect(given.paths, given, of_background, tools.mapper) if given.paths else None
        yield background if background is None or background.label is None else background.take(~background.label)

    def answer(self, rows: list[dict[str, Any]], trials: Sequence[Trial]) -> tuple[list[str], Any]:
        lines, said = super().answer(rows, trials)
        return lines, said if self.here else together(rows, len(trials)) | {"rows": said}

    def run(self, inputs: Sequence[Any], trials: Sequence[Trial], tools: Tools) -> list[Result]:
        """`search_table`, with the scores of all events of the signal region as a table; blind, `search_sidebands`."""
        data, background = inputs
        source = ", ".join(self.config.data.paths)
        how = {"background": background, "source": source, "mapper": tools.mapper}
        if trials[0].signal == VALIDATION:
            return [search_sidebands(data, self.config, **how)]
        if self.config.windows is not None:
            return [search_window(trial.instance, data, self.config, tools.stage, **how) for trial in trials]
        result, scores = search_table(data, self.config, **how)
        return [replace(result, tables={"scores": scores})]


def regions_of(config: Any) -> list[MassWindow]:
    """The signal regions that are searched, each with its sidebands."""
    return [config.window] if config.windows is None else config.windows.regions(config.window)


def search_window(number: int, data: Any, config: Any, stage: Stage | None = None, **given: Any) -> Result:
    """`search_table` in one window, with random numbers of its own; its scores are the table ``scores_<number>``.

    ``stage`` keeps flows that several windows share (`raypipe.config.table.Windows.flows`)."""
    regions = regions_of(config)
    region, group = regions[number], config.windows.together(regions, number)
    if len(group) > 1:
        first = regions.index(group[0])
        given["shared"] = SharedFlows(group, seeds.integer(config.seed, "windows", first, bits=62), stage)
    seed = seeds.integer(config.seed, "window", number) if len(regions) > 1 else config.seed
    try:
        result, scores = search_table(data, config.model_copy(update={"window": region, "seed": seed}), **given)
    except UserError as error:
        raise UserError(f"window {region.sr_low:g}-{region.sr_high:g}: {error}") from error
    own = {"instance": number, "seed": config.seed, "window_low": region.sr_low, "window_high": region.sr_high}
    return replace(result, rows=[row | own for row in result.rows], tables={f"scores_{number}": scores})


def together(rows: Sequence[Mapping[str, Any]], count: int) -> dict[str, Any]:
    """What the rows of ``count`` windows tell, JSON-ready: an entry for each of ``windows``, the ``best`` of them, and
    ``p_global`` and ``z_global`` of its excess (`sidak` over all, also those without a significance), or None.

    ``p_local`` of a window is that of all bins of its score together, ``cuts`` has z after each cut; None: withheld.
    """
    entries: list[dict[str, Any]] = []
    for number in sorted({row["instance"] for row in rows}):
        mine = [plain(row) for row in rows if row["instance"] == number]
        cuts, z = {f"{row['working_point']:g}": row["z_after"] for row in mine}, mine[0]["z_likelihood"]
        own = {"cuts": cuts, "p_local": None if z is None else float(stats.norm.sf(z))}
        entries.append({name: mine[0][name] for name in ENTRY} | own)
    told = {one["instance"]: one["z_likelihood"] for one in entries if one["p_local"] is not None}
    best = max(told, key=lambda number: told[number], default=None)
    of_all = None if best is None else sidak(told[best], count)
    found = {"windows": entries, "count": count, "best": best}
    return found | {f"{name}_global": of_all and getattr(of_all, name) for name in ("p", "z")}
