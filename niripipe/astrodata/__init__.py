"""The data container: data sets with pixels, variance, mask, world coordinates, headers, tables and records.

`open` reads FITS files, `create` makes data sets from nothing. Instrument classes, which know what headers
mean, register themselves with `register_class` and mark their methods with `astro_data_tag`,
`astro_data_descriptor` and `returns_list`.
"""

from niripipe.astrodata.core import AstroData
from niripipe.astrodata.descriptors import astro_data_descriptor, returns_list
from niripipe.astrodata.distortion import Distortion
from niripipe.astrodata.dq import DQ, FAIL, NOT_SIGNAL
from niripipe.astrodata.extension import Extension
from niripipe.astrodata.factory import create, open, register_class
from niripipe.astrodata.factory import open as from_file
from niripipe.astrodata.fits_source import MissingFileError
from niripipe.astrodata.foreign import from_ccddata, to_ccddata
from niripipe.astrodata.headers import HeaderManager, header_value
from niripipe.astrodata.planes import Plane, ScratchFolder
from niripipe.astrodata.provenance import (
    HistoryRecord,
    ProvenanceRecord,
    add_history,
    add_provenance,
    clone_history,
    clone_provenance,
    file_md5,
    utc_now,
)
from niripipe.astrodata.section import Section
from niripipe.astrodata.tags import TagSet, astro_data_tag
from niripipe.astrodata.tangent import TangentPlane
from niripipe.astrodata.wcs import (
    SkyMapping,
    distortion_of,
    pixel_scale,
    shifted,
    undistorted,
    with_affine,
    with_distortion,
)

__all__ = [
    "DQ",
    "FAIL",
    "NOT_SIGNAL",
    "AstroData",
    "Distortion",
    "Extension",
    "HeaderManager",
    "HistoryRecord",
    "MissingFileError",
    "Plane",
    "ProvenanceRecord",
    "ScratchFolder",
    "Section",
    "SkyMapping",
    "TagSet",
    "TangentPlane",
    "add_history",
    "add_provenance",
    "astro_data_descriptor",
    "astro_data_tag",
    "clone_history",
    "clone_provenance",
    "create",
    "distortion_of",
    "file_md5",
    "from_ccddata",
    "from_file",
    "header_value",
    "open",
    "pixel_scale",
    "register_class",
    "returns_list",
    "shifted",
    "to_ccddata",
    "undistorted",
    "utc_now",
    "with_affine",
    "with_distortion",
]
