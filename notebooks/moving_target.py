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
# # A moving target
#
# An asteroid moves by 2 seconds of arc from frame to frame. The telescope follows it, so that the asteroid
# stands still on the detector, but for the dithers, and the stars trail. niripipe sees in the headers that
# the target moves, and aligns on it; a second reduction aligns the same frames on the stars.
#
# Without data of your own the frames are simulated. With a folder of raw frames named on the command line
# (`python moving_target.py FOLDER`) its science frames are reduced.

# %%
import sys
import time
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np

from niripipe import Reduce, dataselect, logutils, simulate
from niripipe.simulate.sequence import Field

started = time.perf_counter()
given = [Path(argument) for argument in sys.argv[1:] if Path(argument).is_dir()]
work = Path("niripipe_moving").absolute()
(work / "raw").mkdir(parents=True, exist_ok=True)
logutils.config(mode="quiet", file_name=str(work / "moving.log"), stomp=True)

# %% [markdown]
# ## Frames
#
# The asteroid is at the centre of the field, as bright as the stars. `RATRACK` in the header is the rate at
# which the telescope follows it, in seconds of time per second.

# %%
RATE, EVERY = 2.0, 35  # arcsec to the East from frame to frame, s between them
SCALE = 0.1171  # arcsec per pixel at f/6
SIZE = 512

if given:
    frames = sorted(given[0].glob("*.fits*"))
else:
    rng = np.random.default_rng(5)
    sky = np.column_stack([rng.uniform(0, SIZE, (25, 2)), rng.uniform(1e3, 3e4, 25)])
    dithers = [(0, 0), (4, 4), (-4, 4), (-4, -4), (4, -4), (2, -3), (-2, 3)]
    frames = []
    for k, (p, q) in enumerate(dithers):
        # East is to the left: a telescope that moves there sees the stars move to the right.
        stars = [(x + RATE * k / SCALE, y, flux) for x, y, flux in sky]
        simulate.frames.TARGET = Field(
            "(433) Eros", ra=148.9 + RATE * k / 3600 / np.cos(np.radians(20)), dec=20.0
        )
        start = datetime(2016, 1, 2, 11, 36) + timedelta(seconds=EVERY * k)
        made = simulate.raw_frame(
            size=SIZE, p=p, q=q, date=start.date(), ut=start.time(), number=270 + k,
            stars=[(SIZE / 2, SIZE / 2, 2e4), *stars],
            keywords={"RATRACK": RATE / EVERY / 15, "OBJECT": "(433) Eros"},
        )  # fmt: skip
        frames.append(simulate.write_frame(made, work / "raw"))

science = dataselect.select_data(frames, ["IMAGE", "NON_SIDEREAL"], ["CAL"])
print(f"{len(science)} of {len(frames)} frames follow a moving target")

# %% [markdown]
# ## On the target
#
# Nothing needs to be set. Dark and flat are left out here; the sky, made of the frames themselves, takes out
# the dark.

# %%
SKIP = {"darkCorrect:do_cal": "skip", "flatCorrect:do_cal": "skip"}
on_target = Reduce(science, parameters=SKIP, calibrations={}, output_dir=work)
on_target.runr()
print(f"aligned on the {on_target.outputs[0].phu['ALGNON']}")
on_target.outputs[0].ALIGNMENT["IMAGE", "METHOD", "DX", "DY"]

# %% [markdown]
# ## On the stars

# %%
on_stars = Reduce(
    science,
    parameters={
        **SKIP,
        "adjustWCSToReference:align_on": "stars",
        "storeProcessedScience:suffix": "_stars",
    },
    calibrations={},
    output_dir=work,
)
on_stars.runr()
print(f"aligned on the {on_stars.outputs[0].phu['ALGNON']}")

# %% [markdown]
# Trails on one, points on the other:

# %%
import matplotlib

if "ipykernel" not in sys.modules:
    matplotlib.use("Agg")
import matplotlib.pyplot as plt

from niripipe import plot

figure, axes = plt.subplots(1, 2, figsize=(11, 5.5), layout="constrained")
for ax, reduction, title in zip(axes, (on_target, on_stars), ("on the target", "on the stars"), strict=True):
    plot.show(reduction.outputs[0], ax=ax)
    ax.set_title(title)
figure.savefig(work / "moving.png")

# %%
print(f"products: {on_target.output_filenames[0]}, {on_stars.output_filenames[0]}")
print(f"all in {time.perf_counter() - started:.1f} s")
