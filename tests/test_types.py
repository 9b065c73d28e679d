"""Types as users meet them: stubs are up to date; mypy finds the faults of a script and nothing else."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

CONFIG = f"""
[mypy]
strict = true
mypy_path = {ROOT}

# What mypy does with a package that is installed.
[mypy-niripipe.*]
follow_imports = silent
follow_imports_for_stubs = True
"""

CORRECT = '''
"""Flats, a recipe of one's own, and what is in the product."""

from glob import glob
from pathlib import Path

import numpy as np

from niripipe import CalibrationService, NiripipeError, Reduce
from niripipe import astrodata, dataselect, inspection, night, primitives
from niripipe.astrodata import DQ, AstroData
from niripipe.primitives import NIRI

all_files = sorted(glob("playdata/*.fits"))
darks = dataselect.select_data(all_files, ["DARK"], [], dataselect.expr_parser("exposure_time==20"))
target = dataselect.select_data(all_files, ["IMAGE"], ["FLAT"], 'object!="FS 17"')

caldb = CalibrationService()
caldb.config(db_dir=".")
caldb.init()

reduce_darks = Reduce()
reduce_darks.files.extend(darks)
reduce_darks.mode = "ql"
reduce_darks.uparms = [("stackDarks:operation", "median")]
reduce_darks.runr()
caldb.add_cal(reduce_darks.output_filenames[0])


def quick(p: NIRI) -> None:
    p.prepare()
    p.addDQ(static_bpm=None, user_bpm="bpm.fits", latency=False)
    p.addVAR(read_noise=True, poisson_noise=True, stream="main")
    p.darkCorrect(dark=Path("dark.fits"), do_cal="skip", skip_primitive=True)
    p.separateSky(ref_obj=["a.fits"], ref_sky="b.fits, c.fits")
    if p.context.mode == "qa":
        p.clearStream(stream="sky")
    skies: list[AstroData] = p.skyCorrect(instream="sky", outstream="skysub", scale_sky=False)
    p.detectSources(skies, detect_thresh=3)
    p.shiftImages(shifts=[(1.5, 2), (0, 0)])
    p.stackFrames(reject_method="varclip", hsigma=3.0, write_outputs=True)
    p.resampleToCommonFrame(target_wcs=p.streams["main"][0])
    p.storeProcessedScience(suffix="_quick")


reduction = Reduce(
    target,
    recipe=quick,
    parameters={"skyCorrect": {"scale_sky": False}},
    calibrations=caldb,
    output_dir="products",
    mode="sq",
    max_memory="1 GB",
)
print(reduction.plan())
try:
    reduction.runr()
except NiripipeError as error:
    print(error)
report = reduction.report
if report is not None:
    print(report.step("stackFrames").summary(), [frame.reason for frame in report.dropped], report.seconds)

ad = astrodata.open(reduction.output_filenames[0])
ext = ad[0]
good = (ext.mask & DQ.fail) == 0
noise = np.sqrt(ext.variance[good])
ny, nx = ext.shape
bright = ext.OBJCAT[ext.OBJCAT["FLUX_AUTO"] > 1e4]
sources, sky_table, steps = ext.OBJMASK == 1, ad.SKYTABLE, ad.HISTORY["primitive", "status"]
if ad.tags >= {"NIRI", "IMAGE"} and ad.exposure_time() > 10 and ad.ut_datetime().year == 2016:
    print(ad.object(), ad.filter_name(pretty=True), ext.gain() * 2, ad.phu["OBJECT"], ext.hdr["EXTVER"])
print(ad.ut_datetime(dateonly=True).isoformat(), ext.data_section(pretty=True), ext.data_section().x1)

difference = ad - ad.copy() * 2.0
difference /= 3
difference[0].data[:10] = 0
difference[0].OBJMASK = np.zeros((ny, nx), np.uint8)
setattr(difference[0], "MINE", noise)
own = getattr(difference[0], "MINE")
for each in difference:
    each.reset(each.read("data") + 1, mask=None, variance=None)
difference.update_filename(suffix="_difference", strip=True)
difference.write(overwrite=True)

p = primitives.of(target, parameters={"skyCorrect": {"scale_sky": False}}, calibrations=caldb, progress=True)
p.prepare()
p.addDQ(user_bpm="bpm.fits")
level = p.frames[0][0].data.mean() + p.streams["main"][0][0].data.mean()
print(p.skyCorrect(scale_sky=False)[0].filename, p.report.step("addDQ").summary(), level)

reduction.recipe = "reduce"
reduction.parameters = {"stackFrames:operation": "mean", "stackFrames:hsigma": 3.0}
reduction.files.append("one_more.fits")
selected = dataselect.select_data(all_files, ["DARK"], on_error="raise")

plan = night.organise("playdata")
result = plan.run(output_dir="products")
for job in result.failed:
    print(job.name, job.reason)
inspection.showpars(ad, "skyCorrect")
'''

FAULTY = """
from niripipe import CalibrationService, Reduce, Reduec  # fault
from niripipe import astrodata, cal_service, dataselect, night, primitives
from niripipe.astrodata import AstroData
from niripipe.primitives import NIRI


def recipe(p: NIRI) -> None:
    p.prepare()
    p.skyCorect()  # fault: the primitive
    p.addVAR(poison_noise=True)  # fault: the parameter
    p.addVAR(read_noise="yes")  # fault: its type
    p.stackFrames(operation="meann")  # fault: its value
    p.stackFrames(hsigma="3")  # fault
    p.detectSources("main")  # fault: a name for frames
    p.addDQ(user_bpm=3)  # fault
    p.addDQ(stream=1)  # fault
    p.addVAR(True)  # fault: by position
    p.skyCorrect(out_stream="skysub")  # fault
    p.addVAR(skip_primitiv=True)  # fault
    p.strems["main"].clear()  # fault
    print(p.context.modus)  # fault
    p.stackFrames()[0].filenam  # fault
    wrong: AstroData = p.stackFrames()  # fault


p = primitives.of(["a.fits"], modus="sq")  # fault
p = primitives.of(["a.fits"])
p.skyCorect()  # fault
p.skyCorrect(scale_skies=False)  # fault
print(p.frame)  # fault
files = dataselect.select_data(["a.fits"], tag=["DARK"])  # fault
dataselect.expr_parser("airmass<2", strickt=True)  # fault
reduction = Reduce(files, mode="sx")  # fault
reduction = Reduce(files, parametres={})  # fault
reduction.runn()  # fault
reduction.recpie = "reduce"  # fault
reduction.mode = "sk"  # fault
print(reduction.output_files)  # fault
if reduction.report is not None:
    print(reduction.report.second)  # fault
    print(reduction.report.steps[0].outcome)  # fault

ad = astrodata.open("a.fits")
print(ad.exposure_tme())  # fault
print(ad.exposure_time(prety=True))  # fault
name: int = ad.object()  # fault
print(ad.filter_name() + 1)  # fault
print(ad[0].gian())  # fault
level: str = ad[0].gain()  # fault
print(ad.filenam)  # fault
ad.filenam = "b.fits"  # fault
print(ad[0].OBJCATT)  # fault
print(ad[0].dta)  # fault
print(ad[0].data.meen())  # fault
print(ad[0].shape.x)  # fault
print((ad + 1).tag)  # fault
for ext in ad:
    print(ext.varaince)  # fault
ad.writ("b.fits")  # fault
astrodata.opn("a.fits")  # fault

caldb = CalibrationService()
caldb.add_call("a.fits")  # fault
caldb.config(db_folder=".")  # fault
cal_service.set_calservise(caldb)  # fault

plan = night.organise("playdata", mode="sx")  # fault
print(plan.leftout)  # fault
result = plan.run(output="products")  # fault
print(result.fail)  # fault
print(result[0].reasn)  # fault
"""


def test_stubs_say_what_the_code_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "docs"))
    generator = importlib.import_module("generate_stubs")
    stale = [str(path) for path, text in generator.stubs() if not path.exists() or path.read_text() != text]
    assert not stale, "run python docs/generate_stubs.py"


def test_every_parameter_of_a_primitive_has_a_type() -> None:
    stub = (ROOT / "niripipe" / "primitives" / "niri.pyi").read_text()
    untyped = re.findall(r"^        (\w+): Any = ", stub, re.M)
    assert not untyped, "say in docs/generate_stubs.py what these accept"


@pytest.mark.slow
def test_faults_of_a_script_are_found_and_correct_lines_are_not_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    api = pytest.importorskip("mypy.api")
    monkeypatch.chdir(tmp_path)
    Path("mypy.ini").write_text(CONFIG)
    Path("correct.py").write_text(CORRECT)
    Path("faulty.py").write_text(FAULTY)

    report, problems, _ = api.run(["--no-pretty", "correct.py", "faulty.py"])

    assert problems == ""
    reported = {(name, int(line)) for name, line in re.findall(r"^(\w+\.py):(\d+): error", report, re.M)}
    planted = {
        ("faulty.py", number) for number, line in enumerate(FAULTY.splitlines(), 1) if "# fault" in line
    }
    assert reported == planted, report
