"""What headers mean: tags and descriptors of Gemini data and of NIRI, and the numbers behind them.

Importing this package registers its classes with `niripipe.astrodata`; `niripipe.astrodata.open` does it by
itself.
"""

from __future__ import annotations

from niripipe.astrodata import register_class
from niripipe.instruments.gemini import AstroDataGemini
from niripipe.instruments.niri import AstroDataNiri
from niripipe.instruments.tables import NiriTables, niri_tables

__all__ = ["AstroDataGemini", "AstroDataNiri", "NiriTables", "niri_tables"]

register_class(AstroDataGemini)
register_class(AstroDataNiri)
