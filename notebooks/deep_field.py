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
# # A deep field: skies made twice
#
# In a deep field the faint sources that single frames do not show remain in the sky, and are subtracted
# from the stack as shallow holes. The recipe `ultradeep` stacks once, finds the sources in the stack, masks
# them in the single frames, and makes the skies again.
#
# Without data of your own the frames are simulated. With a folder of raw frames named on the command line
# (`python deep_field.py FOLDER`) its science frames are reduced, with the calibrations of the night.

# %%
import sys
import time
from pathlib import Path

import numpy as np

from niripipe import Reduce, logutils, night, simulate

started = time.perf_counter()
given = [Path(argument) for argument in sys.argv[1:] if Path(argument).is_dir()]
work = Path("niripipe_deep").absolute()
work.mkdir(parents=True, exist_ok=True)
logutils.config(mode="quiet", file_name=str(work / "deep.log"), stomp=True)

# %%
if given:
    raw = given[0]
else:
    raw = work / "raw"
    simulated = simulate.night(
        raw, seed=3, size=512, scene="sparse", n_target=14, n_sky=0, n_standard=0, n_flat=6,
        n_dark=5, n_short_dark=5, overwrite=True,
    )  # fmt: skip

# %% [markdown]
# ## The night, reduced the usual way

# %%
plan = night.organise(raw)
result = plan.run(work / "products")
print(result)
science = [job for job in plan if job.kind == "science"][-1]
once = result[science.name].outputs[0]

# %% [markdown]
# ## Once more, with deep masks
#
# The calibrations of the night are found through its calibration service. With hundreds of frames the recipe
# runs in three parts, so that the first can be shared among computers: `ultradeep_part1`, `ultradeep_part2`,
# `ultradeep_part3`.

# %%
deep = Reduce(
    science.files,
    recipe="ultradeep",
    parameters={"storeProcessedScience:suffix": "_deep"},
    calibrations=result.calibrations,
    output_dir=work / "products",
)
deep.runr()
print(deep.report)

# %% [markdown]
# ## The difference
#
# Negative where the first sky held light of sources. The level near faint sources is what changes.

# %%
from niripipe import astrodata

first, second = astrodata.open(once), deep.outputs[0]
print(f"{len(first[0].OBJCAT)} sources in the first stack, {len(second[0].OBJCAT)} in the deep one")
same = first[0].shape == second[0].shape
if same:
    change = np.where(second[0].OBJMASK & (first[0].mask == 0), second[0].data - first[0].data, np.nan)
    print(f"median change on sources: {np.nanmedian(change):+.2f} electrons")

# %%
import matplotlib

if "ipykernel" not in sys.modules:
    matplotlib.use("Agg")
from niripipe import plot

figure = plot.show(second)
figure.savefig(work / "deep.png")

# %%
print(f"products in {work / 'products'}")
if not given:
    for name, stack in (("once", first), ("deep", second)):
        print(f"{name} against the truth: {simulate.score(simulated, stack)}")
print(f"all in {time.perf_counter() - started:.1f} s")
