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
# # Colours: one field in J, H and K
#
# A night with a standard star and a target in three filters. Each filter gets its flats, its zero point and
# its stack; the stacks become one catalogue with colours, and a picture.
#
# Without data of your own the night is simulated. With a folder of raw frames named on the command line
# (`python colours_jhk.py FOLDER`) that night is reduced. Aperture photometry needs photutils:
# `pip install "niripipe[photometry]"`.

# %%
import sys
import time
from pathlib import Path

import numpy as np

from niripipe import astrodata, logutils, night, photometry, simulate

started = time.perf_counter()
given = [Path(argument) for argument in sys.argv[1:] if Path(argument).is_dir()]
work = Path("niripipe_colours").absolute()
work.mkdir(exist_ok=True)
logutils.config(mode="quiet", file_name=str(work / "colours.log"), stomp=True)

# %%
if given:
    raw = given[0]
else:
    raw = work / "raw"
    simulated = simulate.night(
        raw,
        seed=17,
        size=512,
        scene="sparse",
        n_stars=40,
        standards=("FS 17",),
        filters=("J", "H", "K"),
        n_target=5,
        n_sky=0,
        n_standard=3,
        n_flat=3,
        n_dark=3,
        n_short_dark=3,
        overwrite=True,
    )

# %% [markdown]
# ## The night
#
# The plan sorts frames by target and filter.

# %%
plan = night.organise(raw)
plan.table()

# %%
result = plan.run(work / "products")
result

# %% [markdown]
# ## Zero points

# %%
stacks = {}
for path in result.products("science"):
    stack = astrodata.open(path)
    stacks[stack.filter_name(pretty=True)] = stack
for name, stack in stacks.items():
    header = stack.phu
    print(f"{name}: zero point {header['ZP']:.3f} +- {header['ZPERR']:.3f} from {header['ZPSTD']}")

# %% [markdown]
# ## One catalogue
#
# The night has written it already, with the stacks on one grid and a picture: `result.colours`. From the
# stacks it is made by `match_catalogues`. Where a source is not seen in a filter, the limit says how faint
# it is there, and the colour is a limit too.

# %%
print([Path(path).name for path in result.colours])
table = photometry.match_catalogues(list(stacks.values()))
table[:8]

# %% [markdown]
# ## A colour-magnitude diagram, and a picture
#
# `rgb_picture` brings the stacks onto one grid; red is the longest wavelength.

# %%
import matplotlib

if "ipykernel" not in sys.modules:
    matplotlib.use("Agg")
import matplotlib.pyplot as plt

names = list(stacks)
blue, red = names[0], names[-1]
figure, (left, right) = plt.subplots(1, 2, figsize=(11, 5), layout="constrained")
good = np.isfinite(table[f"{blue}_{red}"])
colour, error = (table[f"{blue}_{red}{kind}"][good] for kind in ("", "_error"))
left.errorbar(colour.value, table[red][good].value, xerr=error.value, fmt=".", elinewidth=0.7)
left.invert_yaxis()
left.set(xlabel=f"{blue} - {red} (mag)", ylabel=f"{red} (mag)")
if len(stacks) == 3:
    picture = photometry.rgb_picture(list(stacks.values())[::-1], work / "colours_rgb.png")
    right.imshow(picture, origin="lower")
    right.set_axis_off()
figure.savefig(work / "colours.png")

# %%
print(f"{good.sum()} of {len(table)} sources have a colour")
if not given:
    truth = simulated.truth.photometry["zero_points"]
    for name, stack in stacks.items():
        print(f"{name} against the truth: zero point off by {stack.phu['ZP'] - truth[name]:+.3f} mag")
print(f"all in {time.perf_counter() - started:.1f} s")
