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
# # From a folder of raw frames to stacks
#
# A folder as it comes from the archive: darks, flats, a standard star, a target with its skies, and files
# that belong to nothing. niripipe sorts it by the association rules, says why each calibration was chosen,
# and reduces everything in the right order.
#
# Without data of your own a night is simulated. With a folder of raw frames named on the command line
# (`python raw_folder_to_stack.py FOLDER`) that folder is reduced.

# %%
import sys
import time
from datetime import time as clock
from pathlib import Path

import numpy as np

from niripipe import astrodata, inspection, logutils, night, simulate

if "ipykernel" in sys.modules:
    from IPython.display import display
else:
    display = print

started = time.perf_counter()
given = [Path(argument) for argument in sys.argv[1:] if Path(argument).is_dir()]
work = Path("niripipe_folder").absolute()
work.mkdir(parents=True, exist_ok=True)
logutils.config(mode="quiet", file_name=str(work / "raw_folder_to_stack.log"), stomp=True)

# %% [markdown]
# ## An unsorted folder
#
# To the simulated night we add what real folders hold too: an acquisition image, an unfinished download, and
# three short exposures of another field, for which nobody took darks.

# %%
if given:
    raw = given[0]
else:
    raw = work / "raw"
    simulated = simulate.night(raw, seed=28, size=512, standards=("FS 17",), overwrite=True)
    extras = [{"number": 240, "ut": clock(11, 20), "keywords": {"OBSCLASS": "acq"}}]
    short = {
        "exposure": 5.001,
        "stars": simulated.truth.fields["std"].table[1:],
        "keywords": {"OBJECT": "comparison field", "OBSID": "GN-2016A-Q-28-9"},
    }
    extras += [
        {"number": 281 + k, "ut": clock(11, 50 + k), "p": 3.0 * k, "q": 2.0 * k, **short} for k in range(3)
    ]
    for extra in extras:
        simulate.write_frame(simulate.raw_frame(size=512, seed=28, **extra), raw)
    (raw / "N20160102S0290.fits").write_bytes(simulated.files[0].read_bytes()[:50000])

display(inspection.showd(raw, "object,observation_class,exposure_time,coadds,filter_name"))

# %% [markdown]
# ## The plan
#
# Only headers are read. Every reduction says what goes in, what it is calibrated with and why, and which
# parameters the frames ask for; files that no reduction can use are listed at the end.

# %%
plan = night.organise(raw)
display(plan)

# %%
plan.table()

# %% [markdown]
# ## Why this calibration?
#
# Every candidate against every rule, for each reduction on the sky. The same tables can be had from the
# calibration service for any frame: `caldb.explain(frame, "processed_dark")`.

# %%
on_sky = sorted((job for job in plan if job.kind in ("standard", "science")), key=lambda job: len(job.files))
for job in on_sky:
    print(job.name)
    display(plan.explain(job.name, "processed_dark"))

# %% [markdown]
# ## What a recipe does
#
# The primitives in order, with what is not a default. To change a parameter, name the reduction or its kind:
# `plan.with_parameters({"science": {"skyCorrect:scale_sky": True}})`.

# %%
if on_sky:
    target = on_sky[-1]  # the one with the most frames
    display(inspection.showprimitives(target.files[0], parameters=target.parameters))

# %% [markdown]
# ## One call
#
# Products are registered in a calibration store beside them. A reduction that fails would be recorded, and
# the others go on.

# %%
result = plan.run(work / "products", progress=True)
display(result)
display(result.calibrations)

# %% [markdown]
# The service gives the same answer as the plan, now that the products exist.

# %%
caldb = result.calibrations
if on_sky:
    display(caldb.explain(target.files[0], "processed_flat"))

# %% [markdown]
# ## The products

# %%
import matplotlib

if not hasattr(sys, "ps1") and "ipykernel" not in sys.modules:
    matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.colors import AsinhNorm, Normalize

NO_DATA = int(astrodata.DQ.no_data)


def draw(figure, axes, frame, title, *, sky):
    """Draw a frame: the sky relative to its level, linear near it and logarithmic above; others linearly."""
    image = np.where(frame.mask & NO_DATA, np.nan, frame.data) if frame.mask is not None else frame.data
    ticks = None
    if sky:
        low, level = np.nanpercentile(image, (5, 20))
        noise, image = max(float(level - low), 1e-6), image - level
        norm = AsinhNorm(2 * noise, vmin=-4 * noise, vmax=max(np.nanpercentile(image, 99.9), 10 * noise))
        steps = [step * 10.0**k for k in range(6) for step in (1, 3)]
        ticks = [0.0] + [step for step in steps if 3 * noise < step < norm.vmax]
    else:
        norm = Normalize(*np.nanpercentile(image, (1, 99)))
    drawn = axes.imshow(image, origin="lower", cmap="gray", norm=norm, interpolation="nearest")
    axes.set_title(title, fontsize=10)
    axes.set_facecolor("lightsteelblue")  # no data
    unit = "relative response" if title.startswith("flat") else str(frame.hdr.get("BUNIT", "ADU"))
    unit += " above the faintest fifth" if sky else ""
    bar = figure.colorbar(drawn, ax=axes, label=unit, shrink=0.85, ticks=ticks, format="%g" if sky else None)
    bar.minorticks_off()


panels = [(f"raw frame {Path(job.files[0]).name}", job.files[0], True) for job in on_sky[-1:]]
panels += [
    (done.name, done.outputs[0], done.kind in ("standard", "science"))
    for done in result
    if done.outputs and done.kind != "bpm"
]
columns = min(len(panels), 3) or 1
rows = -(-len(panels) // columns) or 1
figure, axes = plt.subplots(
    rows, columns, figsize=(4.6 * columns, 4 * rows), squeeze=False, layout="constrained"
)
for place in axes.flat:
    place.set(xticks=[], yticks=[])
for place in axes.flat[len(panels) :]:
    place.set_axis_off()
for place, (title, path, sky) in zip(axes.flat, panels, strict=False):
    draw(figure, place, astrodata.open(path)[0], title, sky=sky)
picture = work / "products.png"
figure.savefig(picture, dpi=100)

# %%
print(f"products in {result.output_dir}:")
for path in result.products():
    print(f"  {Path(path).name}")
print(f"picture: {picture}")
print(f"all in {time.perf_counter() - started:.1f} s")
if not given:
    for kind, name in (("target", "science SN2014J H"), ("std", "standard")):
        print(f"{name} against the truth: {simulate.score(simulated, result[name].outputs[0], kind=kind)}")
