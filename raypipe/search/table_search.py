"""The search on a user's own feature table around its one trial: files, their digests, their events."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

from raypipe.errors import UserError
from raypipe.events.readers.base import check_file
from raypipe.files import file_digest
from raypipe.search.base import Made, Search
from raypipe.search.blinding import VALIDATION, search_sidebands
from raypipe.search.reading import check_columns, collect
from raypipe.search.result import DATA, Result, Tools, Trial
from raypipe.search.table import search_table


class TableSearch(Search):
    """The search on a user's own feature table: one trial, in this process or spread over cores where that pays."""

    sections: ClassVar[tuple[str, ...]] = (
        *("seed", "window", "massfit", "flow", "classifier", "selection", "preprocess", "data", "background", "blind"),
    )
    options: ClassVar[tuple[str, ...]] = ()
    no_effect: ClassVar[str] = "{} has no effect: a search on a table takes what is in the table, as it is"
    report: ClassVar[str] = "raypipe.report.table:table_report"
    here: ClassVar[bool] = True

    @property
    def parts(self) -> int:
        """Fits of the classifier; a blind search has two windows."""
        return (2 if self.config.blind else 1) * self.config.classifier.folds * self.config.classifier.ensemble

    def grid(self) -> list[Trial]:
        return [Trial(VALIDATION if self.config.blind else DATA, 0.0, 0)]

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

    def run(self, inputs: Sequence[Any], trials: Sequence[Trial], tools: Tools) -> list[Result]:
        """`search_table`, with the scores of all events of the signal region as a table; blind, `search_sidebands`."""
        data, background = inputs
        source = ", ".join(self.config.data.paths)
        how = {"background": background, "source": source, "mapper": tools.mapper}
        if trials[0].signal == VALIDATION:
            return [search_sidebands(data, self.config, **how)]
        result, scores = search_table(data, self.config, **how)
        return [replace(result, tables={"scores": scores})]
