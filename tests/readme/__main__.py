"""Write the tables and numbers of every README, and the picture: ``python -m tests.readme`` (`make readme`)."""

from __future__ import annotations

import sys

from tests.conftest import ROOT

sys.path.insert(0, str(ROOT / "jobs"))  # as pytest does

from tests.readme.pages import filled, pages
from tests.readme.picture import PICTURE, drawn

if __name__ == "__main__":
    PICTURE.write_text(drawn())
    for path in pages():
        path.write_text(filled(path.read_text()))
