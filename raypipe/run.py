"""A search from Python: `Run` makes what is asked for and keeps it in its folder, as the command line does."""

from __future__ import annotations

import atexit
from collections.abc import Iterable
from contextlib import AbstractContextManager
from functools import cached_property
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from raypipe.api import Found, load
from raypipe.errors import UserError
from raypipe.kinds import resolve

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa


class Run(AbstractContextManager["Run"]):
    """One search in one run folder. What is there is not made again, whoever made it: this class or a command.

    Nothing happens before something is asked for. Ray stays until `close`, or the end of a ``with`` block.

    Args:
        config: of `raypipe.load`, or the path of a configuration.
        ray: whether Ray may be started or joined; without it this process makes everything, one after the other.

    >>> run = Run("configs/contrastive/laptop.yaml", ray=False)
    >>> run.events("higgs")
    Traceback (most recent call last):
    raypipe.errors.UserError: sample 'higgs': this search simulates yy, ggf, vbf, vh, tth, wn_150, wn_300, ...
    """

    def __init__(self, config: Any, ray: bool = True) -> None:
        self.config = load(config) if isinstance(config, str | Path) else config
        self.folder, self._alone = Path(self.config.output), not ray

    def __repr__(self) -> str:
        return f"Run({self.config.search}, {self.folder}{', without Ray' if self._alone else ''})"

    @cached_property
    def _run(self) -> Any:
        from raypipe.cluster import run

        atexit.register(self.close)
        return run.Run(self.config, self._alone).__enter__()

    def __exit__(self, *error: object) -> None:
        """End a Ray that was started for this; files stay."""
        atexit.unregister(self.close)
        if run := self.__dict__.pop("_run", None):
            run.__exit__(*error)

    close = __exit__

    def events(self, sample: str, *splits: str) -> pa.Table:
        """The simulated events of a sample, simulated if missing; ``splits``: ``search``, ``embedding`` or both."""
        import pyarrow as pa

        from raypipe.events.schema import SPLITS
        from raypipe.events.table import read_table, sample_path

        known = getattr(getattr(self.config, "simulate", None), "samples", {})
        if sample not in known:
            raise UserError(f"sample {sample!r}: this search simulates {', '.join(known) or 'nothing'}")
        self._run.make([], "simulate")
        paths = [sample_path(self.folder / "events", split, sample) for split in splits or SPLITS]
        return pa.concat_tables(map(read_table, paths))

    def latents(self, embedding: str = "id", signal: str = "none") -> pa.Table:
        """All events in the space of an encoder, trained if missing; ``ip`` and ``ep`` hold out the ``signal``."""
        from raypipe.events.table import read_table
        from raypipe.search.result import Trial

        trials = [Trial(signal, 0.0, 0, embedding)]
        for stage in self._run.search.stages():
            if stage.name == "latents":
                item = stage.items(self._run.make(trials, "latents"), trials)[0]
                return read_table(self._run.files(item)[item.files[0]])
        raise UserError(f"a {self.config.search} search has no encoder")

    def search(self, signal: str = "none", strength: float = 0, instance: int = 0, **how: str) -> SearchResult:
        """One search, as `raypipe search` does it, of pseudo-data or recorded data.

        Args:
            signal: sample to inject; ``strength``: S/√B in the signal region, events in a multilepton search.
            instance: which pseudo-data set. ``how``: ``embedding``, ``method``: see `scan.embeddings`, `scan.methods`.
        """
        from raypipe.search.result import Trial

        self._run.open(self.config)  # somebody may have unblinded it
        run, trial, plain = self._run, Trial(signal, float(strength), instance, **how), Trial("none", 0.0, 0)
        asked = frozenset(name for name in vars(plain) if getattr(trial, name) != getattr(plain, name))
        for name in sorted(asked.difference(run.search.options)):
            raise UserError(run.search.no_effect.format(name))
        grid = run.search.here or not run.search.options  # nothing to choose
        trials = run.search.grid() if grid else run.search.asked(trial, asked)
        lines, said = run.ask(trials)
        told = said if "windows" in said else {}
        keys = run.keys(trials if told else trials[-1:], run.look(trials))
        key, of = list(keys.items())[told.get("best") or 0]
        rows, arrays = self._rows(keys), run.ledger().arrays(key)
        first: dict[str, Any] = {**rows[rows["key"] == key].iloc[0]}
        found = first | told | {"rows": rows, "arrays": arrays, "said": said, "trial": of}
        return SearchResult(found, lines, self._figures(arrays, of, rows, told))

    def _figures(self, arrays: dict[str, Any], trial: Any, rows: pd.DataFrame, told: Any) -> SimpleNamespace:
        def drawn(name: str, *given: Any) -> Any:
            return lambda: resolve(f"raypipe.report.figures:{name}")(*given)

        if "mass_data" in arrays:
            own = {"window": resolve("raypipe.search.table_search:regions_of")(self.config)[trial.instance]}
            mass = drawn("table_mass", arrays, self.config.model_copy(update=own))
            return SimpleNamespace(mass=mass, **({"windows": drawn("windows", told)} if told else {}))
        curves, points = {(trial.signal, trial.strength): [arrays]}, [*rows.get("working_point", ())]
        mass, latents = drawn("masses", arrays, self.config, trial.label()), drawn("features", arrays, trial.label())
        return SimpleNamespace(mass=mass, latents=latents, sic=drawn("sic", curves, points))

    def scan(self) -> Found:
        """All searches of the grid, and the report: ``summary``, and the ``rows`` that ``frame()`` gives, too."""
        summary, rows = self._run.scan(), self.frame()
        return Found({"summary": summary, "rows": rows, "frame": rows.copy}, [f"{len(rows)} rows: {self.folder}"])

    def frame(self) -> pd.DataFrame:
        """What the ledger holds of the grid: a row a finished trial and cut. Nothing is made for it."""
        grid = self._run.search.grid()
        return self._rows(self._run.keys(grid, self._run.look(grid)))

    def _rows(self, keys: Iterable[str]) -> pd.DataFrame:
        import pandas as pd

        return pd.DataFrame([row for row in self._run.ledger().rows(keys) if row["status"] == "ok"])


class SearchResult(Found):
    """One finished search: ``z_before``, ``z_after``, ``sic``, ... of its first cut (NaN: withheld, see ``verdict``,
    or unknown), ``rows`` of all; ``plot.mass()``, of pseudo-data also ``plot.latents()`` and ``plot.sic()``. Of sliding
    ``windows`` it is the best, ``rows`` are those of all windows; ``p_global``, ``z_global``, ``plot.windows()``."""
