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
# # Point sources, dithered on the sky itself
#
# A field of stars, nine frames, each moved by a few seconds of arc. No frame shows blank sky, and none is
# needed: the sky of a frame is made of the frames near it in time, with the sources masked. There is no lamp
# flat and no dark either; the sky takes out the dark, and a flat is made of the frames themselves.
#
# Without data of your own the frames are simulated. With a folder of raw frames named on the command line
# (`python point_source_dither.py FOLDER`) its science frames are reduced.

# %%
import sys
import time
from pathlib import Path

from niripipe import Reduce, dataselect, inspection, logutils, simulate

started = time.perf_counter()
given = [Path(argument) for argument in sys.argv[1:] if Path(argument).is_dir()]
work = Path("niripipe_dither").absolute()
work.mkdir(parents=True, exist_ok=True)
logutils.config(mode="quiet", file_name=str(work / "dither.log"), stomp=True)

# %%
if given:
    frames = sorted(given[0].glob("*.fits*"))
else:
    night = simulate.night(
        work / "raw", seed=11, size=512, scene="sparse", n_target=9, n_sky=0, n_standard=0, n_flat=0,
        n_dark=0, n_short_dark=0, overwrite=True,
    )  # fmt: skip
    frames = sorted(night.files)
science = dataselect.select_data(frames, ["IMAGE"], ["CAL"], 'observation_class=="science"')
inspection.showd(science, "object,exposure_time,filter_name,telescope_x_offset,telescope_y_offset")

# %% [markdown]
# ## A flat of the sky
#
# `makeSkyFlat` combines the frames with their sources masked. Nine dithered frames suffice; with fewer the
# flat adds its noise to the stack.

# %%
SKIP_DARK = {"darkCorrect:do_cal": "skip"}
flat = Reduce(science, recipe="makeSkyFlat", parameters=SKIP_DARK, output_dir=work, calibrations={})
flat.runr()
print(flat.output_filenames[0])

# %% [markdown]
# ## The plan
#
# What will be done, before a pixel is read.

# %%
reduction = Reduce(
    science,
    parameters=SKIP_DARK,
    calibrations={"processed_flat": flat.output_filenames[0]},
    output_dir=work,
)
print(reduction.plan())

# %% [markdown]
# ## The stack

# %%
reduction.runr()
stack = reduction.outputs[0]
print(reduction.report)

# %% [markdown]
# How each frame was aligned, with how many stars, and how well:

# %%
stack.ALIGNMENT

# %% [markdown]
# The brightest sources. Fluxes are electrons in the exposure of one frame.

# %%
catalogue = stack[0].OBJCAT
catalogue.sort("FLUX_AUTO", reverse=True)
catalogue["X_WORLD", "Y_WORLD", "FLUX_AUTO", "FLUXERR_AUTO", "FWHM_WORLD"][:10]

# %%
import matplotlib

if "ipykernel" not in sys.modules:
    matplotlib.use("Agg")
from niripipe import plot

figure = plot.show(stack)
figure.savefig(work / "dither.png")

# %%
print(f"{stack.phu['NCOMBINE']} of {len(science)} frames in {reduction.output_filenames[0]}")
if not given:
    print(f"against the truth: {simulate.score(night, stack)}")
print(f"all in {time.perf_counter() - started:.1f} s")
