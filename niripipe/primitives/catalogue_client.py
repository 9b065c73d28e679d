"""Reference catalogues: from VizieR over plain HTTPS, from files, and from tables, in one form.

Nothing here reaches the network but `cone_search`, which is called when a catalogue is named.
"""

from __future__ import annotations

import io
import time
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from niripipe.errors import DataError, InputError, ParameterError

if TYPE_CHECKING:
    from astropy.table import Table

__all__ = ["CATALOGUES", "VIZIER", "Catalogue", "cone_search", "near", "read_table", "standard_table"]

VIZIER: Final = "https://vizier.cds.unistra.fr/viz-bin/votable"
"""VizieR's interface for VOTables (Centre de Donnees astronomiques de Strasbourg)."""

_CHUNK = 1 << 16
_AGENT = "niripipe (astronomical data reduction)"


@dataclass(frozen=True, slots=True)
class Catalogue:
    """A catalogue that VizieR offers.

    Attributes
    ----------
    table : str
        VizieR's name of the table.
    columns : tuple of str
        Columns to ask for.
    epoch : float or None
        Julian year of the positions, for catalogues with proper motions.
    """

    table: str
    columns: tuple[str, ...]
    epoch: float | None = None


CATALOGUES: Final[Mapping[str, Catalogue]] = MappingProxyType(
    {
        "2mass": Catalogue(
            "II/246/out",
            ("2MASS", "RAJ2000", "DEJ2000", "Jmag", "e_Jmag", "Hmag", "e_Hmag", "Kmag", "e_Kmag"),
        ),
        "ukidss9": Catalogue(
            "II/319/las9",
            (
                "JName", "RAJ2000", "DEJ2000", "Ymag", "e_Ymag",
                "Jmag1", "e_Jmag1", "Hmag", "e_Hmag", "Kmag", "e_Kmag",
            ),
        ),
        "sdss9": Catalogue("V/139/sdss9", ("SDSS9", "RA_ICRS", "DE_ICRS", "zmag", "e_zmag")),
        "gaia3": Catalogue(
            "I/355/gaiadr3",
            ("Source", "RA_ICRS", "DE_ICRS", "Gmag", "e_Gmag", "pmRA", "pmDE"),
            2016.0,
        ),
    }
)  # fmt: skip
"""Names that may be given as the source of a reference catalogue; ``sdss9`` and ``gaia3`` give positions only."""

# Standard name: other names, in lower case, in the order of preference.
_NAMES: Final[Mapping[str, tuple[str, ...]]] = {
    "Cat_Id": ("cat_id", "2mass", "_2mass", "designation", "source", "jname", "sdss9", "objid", "name", "id"),
    "RAJ2000": ("raj2000", "ra_icrs", "x_world", "ra", "raj2000_deg"),
    "DEJ2000": ("dej2000", "de_icrs", "y_world", "dec", "decl", "decj2000"),
    "pmra": ("pmra", "pm_ra"),
    "pmde": ("pmde", "pmdec", "pm_dec"),
    "filtermag": ("filtermag",),
    "filtermag_err": ("filtermag_err", "e_filtermag"),
}
for _band in "gzyjhk":
    _NAMES = {
        **_NAMES,
        f"{_band}mag": (f"{_band}mag", f"{_band}_mag", f"{_band}_m", f"{_band}mag1"),
        f"{_band}mag_err": (
            f"{_band}mag_err", f"e_{_band}mag", f"{_band}_mag_err", f"{_band}_cmsig", f"{_band}cmsig",
            f"{_band}_msigcom", f"e_{_band}mag1",
        ),
    }  # fmt: skip
