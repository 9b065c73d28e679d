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
# # An extended source with offset skies
#
# A night of NIRI imaging, from raw frames to a science stack: a galaxy that fills the field, skies taken
# beside it, a standard star, flats, and darks. Six short reductions.
#
# Without data of your own the night is simulated, so that the result can be compared with the truth. With a
# folder of raw frames named on the command line (`python extended_source.py FOLDER`) that night is reduced.

# %%
import sys
import time
from pathlib import Path

import numpy as np

from niripipe import Reduce, astrodata, cal_service, dataselect, logutils, simulate

if "ipykernel" in sys.modules:
    from IPython.display import display
else:
    display = print

started = time.perf_counter()
given = [Path(argument) for argument in sys.argv[1:] if Path(argument).is_dir()]
work = Path("niripipe_tutorial").absolute()
products = work / "products"
products.mkdir(parents=True, exist_ok=True)

# %% [markdown]
# ## The frames
#
# A simulated night takes a few seconds to make.

# %%
if given:
    night = None
    frames = sorted(given[0].glob("*.fits*"))
else:
    night = simulate.night(work / "night", seed=2016, overwrite=True, progress=True)
    frames = sorted(night.files)
print(f"{len(frames)} raw frames in {frames[0].parent}")

# %% [markdown]
# ## Log and calibrations
#
# Messages go to a file. The calibration service keeps track of the processed calibrations in one small
# database, here beside the products.

# %%
logutils.config(mode="quiet", file_name=str(work / "niri_tutorial.log"), stomp=True)

caldb = cal_service.CalibrationService()
caldb.config(db_dir=work)
caldb.init(wipe=True)
cal_service.set_calservice()

# %% [markdown]
# ## Lists of files
#
# Frames are chosen by tags and descriptors. Exposure times match when they are close enough: 20 finds
# 20.002 s.

# %%
all_files = [str(path) for path in frames]
darks20s = dataselect.select_data(all_files, ["DARK"], [], dataselect.expr_parser("exposure_time==20"))
darks1s = dataselect.select_data(all_files, ["DARK"], [], dataselect.expr_parser("exposure_time==1"))
flats = dataselect.select_data(all_files, ["FLAT"])
stdstar = dataselect.select_data(all_files, [], [], dataselect.expr_parser('object=="FS 17"'))
target = dataselect.select_data(all_files, ["IMAGE"], ["FLAT"], dataselect.expr_parser('object!="FS 17"'))
for name, files in (
    ("20 s darks", darks20s),
    ("1 s darks", darks1s),
    ("flats", flats),
    ("standard star", stdstar),
    ("target and sky", target),
):
    print(f"{name:>16s}: {len(files)}")

# %% [markdown]
# ## Calibrations: dark, bad pixel mask, flat
#
# The bad pixel mask is made of flats and short darks, the flats first. All three are added to the service,
# which finds them again for the frames that they fit.

# %%
reduce_darks = Reduce(output_dir=products, progress=True)
reduce_darks.files.extend(darks20s)
reduce_darks.runr()
caldb.add_cal(reduce_darks.output_filenames[0])

reduce_bpm = Reduce(output_dir=products, progress=True)
reduce_bpm.files.extend(flats)
reduce_bpm.files.extend(darks1s)
reduce_bpm.recipename = "makeProcessedBPM"
reduce_bpm.runr()
bpm = reduce_bpm.output_filenames[0]

reduce_flats = Reduce(output_dir=products, progress=True)
reduce_flats.files.extend(flats)
reduce_flats.uparms = [("addDQ:user_bpm", bpm)]
reduce_flats.runr()
caldb.add_cal(reduce_flats.output_filenames[0])
display(caldb)

# %% [markdown]
# ## The standard star
#
# No darks were taken for the standard, so the dark correction is switched off.

# %%
reduce_std = Reduce(output_dir=products, progress=True)
reduce_std.files.extend(stdstar)
reduce_std.uparms = [("addDQ:user_bpm", bpm)]
reduce_std.uparms.append(("darkCorrect:do_cal", "skip"))
reduce_std.runr()

# %% [markdown]
# ## The science target
#
# The galaxy fills the field, so that the level of the target frames is not that of the sky: the sky is
# subtracted without being scaled to it.

# %%
reduce_target = Reduce(output_dir=products, progress=True)
reduce_target.files.extend(target)
reduce_target.uparms = [("addDQ:user_bpm", bpm)]
reduce_target.uparms.append(("skyCorrect:scale_sky", False))
reduce_target.runr()
display(reduce_target.report)

# %% [markdown]
# ## Before and after
#
# One raw frame and the stack of all, the same field above and the same detail below: bad pixels, cosmic rays
# and the pattern of the detector are gone, and the noise is lower. The brightness scale is linear near the
# background and logarithmic above. The stack covers the whole dithered field; its borders hold fewer frames.

# %%
import matplotlib

if not hasattr(sys, "ps1") and "ipykernel" not in sys.modules:
    matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.colors import AsinhNorm

NO_DATA = int(astrodata.DQ.no_data)
raw = astrodata.open(target[1])
stack = reduce_target.outputs[0]
scale = raw.pixel_scale()


def shown(frame):
    """Return the pixels of a frame relative to the faintest fifth of them; NaN where there are none."""
    image = np.where(frame.mask & NO_DATA, np.nan, frame.data) if frame.mask is not None else frame.data
    return image - np.nanpercentile(image, 20)


def draw(axes, image, title, corner, side):
    """Draw a square of an image with a bar for its scale; the range is that of the whole image."""
    # The level is at 0, so that what lies below it is noise.
    noise = max(-float(np.nanpercentile(image, 5)), 1e-6)
    norm = AsinhNorm(2 * noise, vmin=-4 * noise, vmax=max(np.nanpercentile(image, 99.9), 10 * noise))
    axes.imshow(image, origin="lower", cmap="gray", norm=norm, interpolation="nearest")
    axes.set(xlim=(corner[0], corner[0] + side), ylim=(corner[1], corner[1] + side), xticks=[], yticks=[])
    axes.set_title(title, fontsize=11)
    axes.set_facecolor("lightsteelblue")  # no data
    length = 20 if side * scale > 60 else 5
    x, y = corner[0] + 0.05 * side, corner[1] + 0.05 * side
    axes.plot([x, x + length / scale], [y, y], color="white", linewidth=2)
    axes.text(x, y + 0.02 * side, f'{length}"', color="white", fontsize=10)


def place(x, y):
    """Return where in the stack a pixel of the raw frame is."""
    return [float(value) for value in stack[0].wcs.world_to_pixel(raw[0].wcs.pixel_to_world(x, y))]


ny, nx = raw[0].shape
detail = (0.62 * nx, 0.62 * ny)
figure, axes = plt.subplots(2, 2, figsize=(10, 10.4), layout="constrained")
for column, frame, name, corners in (
    (0, raw, f"raw frame {raw.filename}", ((0, 0), detail)),
    (1, stack, f"stack of {stack.phu['NCOMBINE']}, {stack.filename}", (place(0, 0), place(*detail))),
):
    image = shown(frame[0])
    draw(axes[0, column], image, name, corners[0], nx)
    draw(axes[1, column], image, "detail", corners[1], nx / 5)
figure.suptitle(f"{raw.object()}, {raw.filter_name(pretty=True)}, {raw.exposure_time():.0f} s a frame")
picture = work / "before_after.png"
figure.savefig(picture, dpi=110)

# %% [markdown]
# ## Summary

# %%
seconds = time.perf_counter() - started
print(f"products in {products}:")
for reduction in (reduce_darks, reduce_bpm, reduce_flats, reduce_std, reduce_target):
    print(f"  {Path(reduction.output_filenames[0]).name:<32s} {reduction.report.seconds:6.2f} s")
print(f"picture: {picture}")
print(f"all in {seconds:.1f} s")
if night is not None:
    for label, reduction, kind in (("target", reduce_target, "target"), ("standard", reduce_std, "std")):
        print(
            f"{label} against the simulated truth: {simulate.score(night, reduction.outputs[0], kind=kind)}"
        )
