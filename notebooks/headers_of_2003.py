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
# # Data of 2003, with broken headers
#
# Headers of NIRI's first years have other keywords and other units, and now and then something in them is
# wrong: a position that is off, an offset that nobody recorded, text where a number belongs. niripipe reads
# each epoch as it was written, compares the statements of all frames of a sequence, and says what it did not
# believe, and why.
#
# Without data of your own the frames are simulated. With a folder of raw frames named on the command line
# (`python headers_of_2003.py FOLDER`) its science frames are reduced.

# %%
import sys
import time
from datetime import date
from pathlib import Path

from astropy.io import fits

from niripipe import astrodata, inspection, logutils, night, simulate

started = time.perf_counter()
given = [Path(argument) for argument in sys.argv[1:] if Path(argument).is_dir()]
work = Path("niripipe_2003").absolute()
work.mkdir(parents=True, exist_ok=True)
logutils.config(mode="quiet", file_name=str(work / "headers.log"), stomp=True)

# %% [markdown]
# ## Frames, and what is wrong with them
#
# One frame states a right ascension that is 0.05 degrees off, in another the world coordinates are
# 0.02 degrees off, and a third has no airmass.

# %%
if given:
    raw = given[0]
else:
    raw = work / "raw"
    simulated = simulate.night(
        raw, seed=9, scene="sparse", date=date(2003, 8, 10), n_target=6, n_sky=0,
        n_standard=0, n_flat=3, n_dark=3, n_short_dark=0, overwrite=True,
    )  # fmt: skip
    frames = sorted(simulated.target)
    for frame, wrong in ((frames[2], "RA"), (frames[3], "WCS"), (frames[4], "AIRMASS")):
        with fits.open(frame, mode="update") as hdus:
            if wrong == "RA":
                hdus[0].header["RA"] += 0.05
            elif wrong == "WCS":
                for hdu in hdus:
                    if "CRVAL1" in hdu.header:
                        hdu.header["CRVAL1"] += 0.02
            else:
                hdus[0].header["AIRMASS"] = -9999.0
inspection.showd(raw, "object,ut_datetime,exposure_time,filter_name,airmass,ra")

# %% [markdown]
# ## The stack

# %%
plan = night.organise(raw)
result = plan.run(work / "products")
result

# %% [markdown]
# ## What was not believed
#
# Every doubt is a warning in the report, a keyword in the product, and a line in its history.

# %%
science = [done for done in result if done.kind == "science"][-1]
for warning in science.warnings:
    print(warning)

# %%
stack = astrodata.open(science.outputs[0])
stack.ALIGNMENT

# %%
import matplotlib

if "ipykernel" not in sys.modules:
    matplotlib.use("Agg")
from niripipe import plot

figure = plot.show(stack)
figure.savefig(work / "stack.png")

# %%
print(f"{stack.phu['NCOMBINE']} frames in {science.outputs[0]}")
if not given:
    print(f"against the truth: {simulate.score(simulated, stack)}")
print(f"all in {time.perf_counter() - started:.1f} s")
