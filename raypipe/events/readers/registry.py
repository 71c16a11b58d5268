"""Which reader a file needs."""

from importlib import import_module
from pathlib import Path

from raypipe.config.read import Source
from raypipe.errors import UserError
from raypipe.events.readers.base import Reader, check_file
from raypipe.events.text import SUFFIXES, is_text

READERS = {
    "numpy": "columnar.NumpyReader",
    "hdf5": "hdf5.Hdf5Reader",
    "parquet": "columnar.ParquetReader",
    "csv": "columnar.CsvReader",
    "root": "root.RootReader",
    "delphes": "root.DelphesReader",
    "nanoaod": "root.NanoAodReader",
    "lhco": "lhco.LhcoReader",
    "pairs": "pairs.PairReader",
}
"""Format -> class in this package; loaded when first needed, so that a CSV user needs no ROOT library."""

EXTENSIONS = {
    ".npy": "numpy",
    **dict.fromkeys((".h5", ".hdf5", ".hdf"), "hdf5"),
    **dict.fromkeys((".parquet", ".pq"), "parquet"),
    ".root": "root",
    **dict.fromkeys(SUFFIXES, "csv"),
}


def is_url(path: str | Path) -> bool:
    """Whether a file lies behind a URL, such as ``root://server//path``."""
    return "://" in str(path)


def file_format(path: str | Path, source: Source) -> str:
    """The format of ``path``: as the source says, else by extension; an unknown one is a `UserError`."""
    path = path if is_url(path) else check_file(path)
    if source.pairs is not None:
        return "pairs"
    if source.format != "auto":
        return source.format
    found = "root" if is_url(path) else "csv" if is_text(path) else EXTENSIONS.get(path.suffix.lower())
    if found is None:
        known = f"(known: {', '.join(EXTENSIONS)}); or name the format ({', '.join(READERS)})"
        raise UserError(f"{path}: unknown extension {path.suffix!r} {known}")
    if found == "root":  # Delphes by its tree's name, NanoAOD by its tree and its luminosity blocks
        from raypipe.events.readers.root import open_tree

        with open_tree(path, source.key, ("Delphes", "Events")) as tree:
            nano = tree.name == "Events" and "luminosityBlock" in tree
            return "delphes" if tree.name == "Delphes" else "nanoaod" if nano else found
    if found == "hdf5":  # the particle lists of the LHC Olympics are hundreds of columns, three a particle
        from raypipe.events.readers.hdf5 import Hdf5Reader

        columns = len(Hdf5Reader().names(path, source))
        return "lhco" if columns >= 600 and columns % 3 < 2 else found
    return found


def reader_for(path: str | Path, source: Source) -> Reader:
    """The reader of one file."""
    module, _, name = READERS[file_format(path, source)].partition(".")
    return getattr(import_module(f"raypipe.events.readers.{module}"), name)()
