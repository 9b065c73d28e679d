# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # From standard star to magnitude
#
# A night with two standard stars and a target, from raw frames to calibrated magnitudes: the plan recognises
# the standards, measures them in every frame, and the stack of the target gets the zero point.
#
# Without data of your own the night is simulated, so that the result can be compared with the truth. With a
# folder of raw frames named on the command line (`python standard_star.py FOLDER`) that night is reduced.
# Aperture photometry needs photutils: `pip install "niripipe[photometry]"`.

# %%
import sys
import time
from pathlib import Path

import numpy as np
from astropy import units as u

from niripipe import astrodata, logutils, night, photometry, simulate

started = time.perf_counter()
given = [Path(argument) for argument in sys.argv[1:] if Path(argument).is_dir()]
work = Path("niripipe_standard").absolute()
products = work / "products"
work.mkdir(exist_ok=True)
logutils.config(mode="quiet", file_name=str(work / "niripipe.log"), stomp=True)

# %% [markdown]
# ## The standard stars
#
# 147 standards in the Mauna Kea system come with the package, with their sources. A table of your own may
# join in: `photometry.standards("my_standards.csv")`.

# %%
standards = photometry.standards()
print(standards["name", "ra", "dec", "J", "H", "K"][55:60])
print(standards.meta["source"])

# %% [markdown]
# ## The frames
#
# A star is recognised by position; its name helps where two are near.

# %%
if given:
    truth, frames = None, given[0]
else:
    simulated = simulate.night(
        work / "night",
        seed=2016,
        overwrite=True,
        size=256,
        scene="sparse",
        n_stars=20,
        n_sky=0,
        n_target=5,
        n_standard=5,
        n_flat=5,
        n_dark=3,
        n_short_dark=3,
        standards=("FS 11", "FS 17"),
    )
    truth, frames = simulated.truth, simulated.folder
print(f"frames in {frames}")

# %% [markdown]
# ## The plan
#
# `makeStandard` reduces the standards; the target uses both, the nearest in time and airmass first.

# %%
plan = night.organise(frames)
print(plan)

# %%
result = plan.run(products)
print(result)

# %% [markdown]
# ## The zero point
#
# Each frame of a standard gives one. The product holds their table, the curve of growth, and in the primary
# header the mean with its random and its systematic error (catalogue, band, extinction, aperture). Those of
# the frames are for the aperture of 4 FWHM; the mean is for all light, a few thousandths of a magnitude more.

# %%
for path in result.products("standard"):
    standard = astrodata.open(path)
    header = standard.phu
    print(
        f"{header['ZPSTD']}: {header['ZP']:.3f} +/- {header['ZPERR']:.3f} +/- {header['ZPSYSERR']:.3f} mag, "
        f"airmass {header['ZPAIRM']:.2f}, {header['ZPNFRAME']} frames"
    )
    standard.STDPHOT["IMAGE", "FWHM", "FLUX", "AIRMASS", "ZP", "USED"].pprint(max_width=-1)

# %% [markdown]
# ## Magnitudes of the target
#
# The stack is still in electrons. Its catalogue has units and magnitudes; `to_magnitudes` and
# `to_microjansky` turn any counts of it into magnitudes and flux densities.

# %%
stack = astrodata.open(result.products("science")[0])
header, catalogue = stack.phu, stack[0].OBJCAT
print(
    f"zero point {header['ZP']:.3f} +/- {header['ZPERR']:.3f} +/- {header['ZPSYSERR']:.3f} mag "
    f"({header['ZPSYSTEM']}), {header['ZPWHY']}"
)
print(
    f"a star of 5 sigma has {stack[0].hdr['DEPTH5']:.2f} mag in an aperture of "
    f"{stack[0].hdr['DEPTHRAD']:g} pixels"
)
catalogue.sort("MAG_APER_6")
shown = catalogue["X_WORLD", "Y_WORLD", "MAG_APER_6", "MAGERR_APER_6", "MAG_AUTO", "FWHM_IMAGE", "FLAGS"]
shown[:8].pprint(max_width=-1)
brightest = catalogue["FLUX_APER_6"][0] * 10 ** (-0.4 * stack[0].hdr["APCOR6"])
print(
    photometry.to_magnitudes(stack, brightest),
    "=",
    photometry.to_magnitudes(stack, brightest, system="AB"),
    "=",
    photometry.to_microjansky(stack, brightest).to(u.mJy),
)

# %% [markdown]
# ## Against the truth
#
# Of the simulated night the magnitudes are known.

# %%
if truth is not None:
    field = truth.fields["target"]
    x, y, flux = field.table.T
    true = truth.photometry["zero_points"]["H"] - 2.5 * np.log10(flux)
    difference = []
    for row in catalogue[catalogue["MAGERR_APER_6"] < 0.03]:
        nearest = np.argmin(np.abs(true - row["MAG_APER_6"]))
        difference.append(float(row["MAG_APER_6"] - true[nearest]))
    print(f"zero point minus truth: {header['ZP'] - truth.photometry['zero_points']['H']:+.4f} mag")
    print(f"magnitudes minus truth, median of {len(difference)} stars: {np.median(difference):+.4f} mag")

# %%
print(f"all in {time.perf_counter() - started:.1f} s")
