# Written by docs/generate_stubs.py from the code; changes made here are lost.

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

from astropy.io import fits
from astropy.table import Table
from astropy.wcs import WCS

from niripipe.astrodata import AstroData
from niripipe.primitives.base import PrimitivesBase

__all__ = ["NIRI"]

class NIRI(PrimitivesBase):
    tagset: ClassVar[frozenset[str]]
    instrument_defaults: ClassVar[Mapping[str, Mapping[str, Any]]]

    def ADUToElectrons(
        self,
        frames: list[AstroData] | None = None,
        *,
        suffix: str | None = "_ADUToElectrons",
        stream: str = "main",
        instream: str | None = None,
        outstream: str | None = None,
        skip_primitive: bool = False,
        write_outputs: bool = False,
    ) -> list[AstroData]:
        """Convert data, variance and levels from ADU to electrons; GAIN becomes 1."""

    def addDQ(
        self,
        frames: list[AstroData] | None = None,
        *,
        suffix: str | None = "_dqAdded",
        non_linear: bool = False,
        time: float = 120.0,
        decay: float | None = None,
        residual: float = 0.01,
        static_bpm: AstroData | Path | str | Literal["default"] | None = "default",
        user_bpm: Sequence[AstroData | Path | str] | None = None,
        max_bad: float = 0.3333333333333333,
        latency: bool = True,
        add_illum_mask: bool = False,
        illum_mask: AstroData | Path | str | None = None,
        stream: str = "main",
        instream: str | None = None,
        outstream: str | None = None,
        skip_primitive: bool = False,
        write_outputs: bool = False,
    ) -> list[AstroData]:
        """Make the data-quality plane: bad pixels, non-linear and saturated ones, and persistence."""

    def addIllumMaskToDQ(
        self,
        frames: list[AstroData] | None = None,
        *,
        suffix: str | None = "_illumMaskAdded",
        illum_mask: AstroData | Path | str | None = None,
        stream: str = "main",
        instream: str | None = None,
        outstream: str | None = None,
        skip_primitive: bool = False,
        write_outputs: bool = False,
    ) -> list[AstroData]:
        """Flag (bit 64) what an illumination mask covers."""

    def addLatencyToDQ(
        self,
        frames: list[AstroData] | None = None,
        *,
        suffix: str | None = "_latencyAdded",
        non_linear: bool = False,
        time: float = 120.0,
        decay: float | None = None,
        residual: float = 0.01,
        stream: str = "main",
        instream: str | None = None,
        outstream: str | None = None,
        skip_primitive: bool = False,
        write_outputs: bool = False,
    ) -> list[AstroData]:
        """Flag (bit 8) pixels that were saturated in a frame that ended less than `time` before."""

    def addObjectMaskToDQ(
        self,
        frames: list[AstroData] | None = None,
        *,
        suffix: str | None = "_objectMaskAdded",
        stream: str = "main",
        instream: str | None = None,
        outstream: str | None = None,
        skip_primitive: bool = False,
        write_outputs: bool = False,
    ) -> list[AstroData]:
        """Set bit 1 of the data-quality plane where the frame has an object."""

    def addReferenceCatalog(
        self,
        frames: list[AstroData] | None = None,
        *,
        suffix: str | None = "_refcatAdded",
        source: Table | Path | str | None = None,
        radius: float = 0.033,
        format: str | None = None,
        server: str = "https://vizier.cds.unistra.fr/viz-bin/votable",
        timeout: float = 30.0,
        max_rows: int = 5000,
        client: Literal["niripipe", "astroquery"] = "niripipe",
        required: bool = True,
        stream: str = "main",
        instream: str | None = None,
        outstream: str | None = None,
        skip_primitive: bool = False,
        write_outputs: bool = False,
    ) -> list[AstroData]:
        """Attach the sources of a reference catalogue around each frame as the table REFCAT."""

    def addToList(
        self,
        frames: list[AstroData] | None = None,
        *,
        purpose: str | None = None,
        stream: str = "main",
        instream: str | None = None,
        outstream: str | None = None,
        skip_primitive: bool = False,
        write_outputs: bool = False,
    ) -> list[AstroData]:
        """Write frames with the suffix ``_<purpose>`` and put them on the list of their group."""

    def addVAR(
        self,
        frames: list[AstroData] | None = None,
        *,
        suffix: str | None = "_varAdded",
        read_noise: bool = False,
        poisson_noise: bool = False,
        stream: str = "main",
        instream: str | None = None,
        outstream: str | None = None,
        skip_primitive: bool = False,
        write_outputs: bool = False,
    ) -> list[AstroData]:
        """Add the variance of read noise and photon noise."""

    def adjustWCSToReference(
        self,
        frames: list[AstroData] | None = None,
        *,
        suffix: str | None = "_wcsCorrected",
        method: Literal["sources", "correlation", "offsets"] = "sources",
        fallback: Literal["offsets", "correlation"] | None = "offsets",
        align_on: Literal["auto", "stars", "target"] = "auto",
        reference: Literal["auto", "first", "best"] = "auto",
        first_pass: float = 5.0,
        last_pass: float | None = 60.0,
        match_radius: float = 0.5,
        min_sources: int = 3,
        cull_sources: bool = False,
        rotate: bool | None = None,
        scale: bool = False,
        distortion: Literal["auto", "published", "fit", "none"] = "auto",
        stream: str = "main",
        instream: str | None = None,
        outstream: str | None = None,
        skip_primitive: bool = False,
        write_outputs: bool = False,
    ) -> list[AstroData]:
        """Correct the WCS of each frame relative to the first frame's."""

    def appendStream(
        self,
        frames: list[AstroData] | None = None,
        *,
        from_stream: str = "",
        copy: bool = False,
        stream: str = "main",
        instream: str | None = None,
        outstream: str | None = None,
        skip_primitive: bool = False,
        write_outputs: bool = False,
    ) -> list[AstroData]:
        """Append the frames of another stream."""

    def applyDQPlane(
        self,
        frames: list[AstroData] | None = None,
        *,
        suffix: str | None = "_dqPlaneApplied",
        replace_flags: int = 65529,
        replace_value: Literal["median", "mean"] | float = "median",
        inner: float | None = None,
        outer: float | None = None,
        max_iters: int = 1,
        stream: str = "main",
        instream: str | None = None,
        outstream: str | None = None,
        skip_primitive: bool = False,
        write_outputs: bool = False,
    ) -> list[AstroData]:
        """Replace flagged pixels by a number or by a statistic of pixels that are not flagged."""

    def applyZeroPoint(
        self,
        frames: list[AstroData] | None = None,
        *,
        suffix: str | None = "_photCalibrated",
        do_cal: Literal["optional", "force", "skip"] = "optional",
        standard: Sequence[AstroData | Path | str] | None = None,
        fit: Literal["joint", "nearest"] = "joint",
        system: Literal["Vega", "AB"] = "Vega",
        radii: Sequence[float] = ...,
        stream: str = "main",
        instream: str | None = None,
        outstream: str | None = None,
        skip_primitive: bool = False,
        write_outputs: bool = False,
    ) -> list[AstroData]:
        """Give a stack its zero point, and its sources magnitudes."""

    def associateSky(
        self,
        frames: list[AstroData] | None = None,
        *,
        suffix: str | None = "_skyAssociated",
        time: float = 900.0,
        distance: float = 1.0,
        min_skies: int | None = 3,
        max_skies: int | None = None,
        use_all: bool = False,
        sky: Sequence[AstroData | Path | str] | None = None,
        stream: str = "main",
        instream: str | None = None,
        outstream: str | None = None,
        skip_primitive: bool = False,
        write_outputs: bool = False,
    ) -> list[AstroData]:
        """Choose for each frame the sky frames to be combined; SKYTABLE holds their names."""

    def checkCalibrationInputs(
        self,
        frames: list[AstroData] | None = None,
        *,
        unfit: Literal["refuse", "warn"] = "refuse",
        stream: str = "main",
        instream: str | None = None,
        outstream: str | None = None,
        skip_primitive: bool = False,
        write_outputs: bool = False,
    ) -> list[AstroData]:
        """Leave out raw darks and flats that cannot make a calibration; stop when too few are left."""

    def checkZeroPoint(
        self,
        frames: list[AstroData] | None = None,
        *,
        suffix: str | None = "_zeroPointChecked",
        min_stars: int = 3,
        stream: str = "main",
        instream: str | None = None,
        outstream: str | None = None,
        skip_primitive: bool = False,
        write_outputs: bool = False,
    ) -> list[AstroData]:
        """Compare the zero point of a stack with that of catalogue stars in its field."""

    def cleanFFTReadout(
        self,
        frames: list[AstroData] | None = None,
        *,
        suffix: str | None = "_readoutFFTCleaned",
        clean: Literal["skip", "default", "force"] = "skip",
        win_size: int = 9,
        periodicity: float = 8.0,
        sigma_fact: float = 4.0,
        pat_thres: float = -0.3,
        lquad: bool = True,
        l2clean: bool = True,
        l2thres: float = 4.0,
        smoothing_extent: int = 5,
        pad_rows: int = 0,
        stream: str = "main",
        instream: str | None = None,
        outstream: str | None = None,
        skip_primitive: bool = False,
        write_outputs: bool = False,
    ) -> list[AstroData]:
        """Remove the frequencies of the readout pattern from each row that carries it."""

    def cleanReadout(
        self,
        frames: list[AstroData] | None = None,
        *,
        suffix: str | None = "_readoutCleaned",
        clean: Literal["skip", "default", "force"] = "skip",
        offsets: bool = True,
        pattern_x_size: int = 16,
        pattern_y_size: int = 4,
        hsigma: float = 3.0,
        lsigma: float = 3.0,
        pat_strength_thres: float = 15.0,
        simple_thres: float = 0.6,
        level_bias_offset: bool = True,
        smoothing_extent: int = 5,
        intraquad_smooth: int = 50,
        debug_subtract_background: bool = True,
        debug_canny_sigma: float = 3.0,
        stream: str = "main",
        instream: str | None = None,
        outstream: str | None = None,
        skip_primitive: bool = False,
        write_outputs: bool = False,
    ) -> list[AstroData]:
        """Remove what the readout adds to rows, columns and quadrants, where that lowers the noise."""

    def clearAllStreams(
        self,
        frames: list[AstroData] | None = None,
        *,
        stream: str = "main",
        instream: str | None = None,
        outstream: str | None = None,
        skip_primitive: bool = False,
        write_outputs: bool = False,
    ) -> list[AstroData]:
        """Empty all streams but ``main``."""

    def clearStream(
        self,
        frames: list[AstroData] | None = None,
        *,
        stream: str = "main",
        instream: str | None = None,
        outstream: str | None = None,
        skip_primitive: bool = False,
        write_outputs: bool = False,
    ) -> list[AstroData]:
        """Empty a stream."""

    def copyInputs(
        self,
        frames: list[AstroData] | None = None,
        *,
        stream: str = "main",
        instream: str | None = None,
        outstream: str | None = None,
        skip_primitive: bool = False,
        write_outputs: bool = False,
    ) -> list[AstroData]:
        """Do nothing: with ``outstream=`` the frames are copied there."""

    def correctBackgroundToReference(
        self,
        frames: list[AstroData] | None = None,
        *,
        suffix: str | None = "_backgroundCorrected",
        separate_ext: bool = True,
        remove_background: bool = False,
        stream: str = "main",
        instream: str | None = None,
        outstream: str | None = None,
        skip_primitive: bool = False,
        write_outputs: bool = False,
    ) -> list[AstroData]:
        """Shift the level of each frame to that of the first, or to zero; SKYLEVEL keeps it."""

    def correctResidualSky(
        self,
        frames: list[AstroData] | None = None,
        *,
        suffix: str | None = "_residualSkyCorrected",
        correct: Literal["skip", "default", "force"] = "default",
        box: int = 32,
        smoothing: float = 0.8,
        dilation: float = 8.0,
        stream: str = "main",
        instream: str | None = None,
        outstream: str | None = None,
        skip_primitive: bool = False,
        write_outputs: bool = False,
    ) -> list[AstroData]:
        """Fit what is left of the sky in each frame by a smooth map, and subtract it."""

    def darkCorrect(
        self,
        frames: list[AstroData] | None = None,
        *,
        suffix: str | None = "_darkCorrected",
        do_cal: Literal["procmode", "force", "skip"] = "procmode",
        dark: AstroData | Path | str | None = None,
        stream: str = "main",
        instream: str | None = None,
        outstream: str | None = None,
        skip_primitive: bool = False,
        write_outputs: bool = False,
    ) -> list[AstroData]:
        """Subtract the matching processed dark."""

    def detectSources(
        self,
        frames: list[AstroData] | None = None,
        *,
        suffix: str | None = "_sourcesDetected",
        mask: bool = True,
        replace_flags: int = 249,
        detect_minarea: int = 40,
        detect_thresh: float = 1.5,
        analysis_thresh: float = 1.5,
        deblend_mincont: float = 0.005,
        phot_min_radius: float = 3.5,
        back_size: int = 32,
        back_filtersize: int = 3,
        catalogue: bool | Literal["positions"] = True,
        enough: int = 0,
        faint: bool = False,
        stream: str = "main",
        instream: str | None = None,
        outstream: str | None = None,
        skip_primitive: bool = False,
        write_outputs: bool = False,
    ) -> list[AstroData]:
        """Find the sources of a frame and measure them: OBJCAT (table) and OBJMASK (1 in a source)."""

    def determineAstrometricSolution(
        self,
        frames: list[AstroData] | None = None,
        *,
        suffix: str | None = "_astrometryCorrected",
        initial: float = 5.0,
        final: float = 1.0,
        rotate: bool | None = None,
        scale: bool = False,
        min_sources: int = 3,
        stream: str = "main",
        instream: str | None = None,
        outstream: str | None = None,
        skip_primitive: bool = False,
        write_outputs: bool = False,
    ) -> list[AstroData]:
        """Fit the WCS to the reference catalogue, and give sources their reference magnitudes."""

    def determineZeroPoint(
        self,
        frames: list[AstroData] | None = None,
        *,
        suffix: str | None = "_zeroPointDetermined",
        extinction: float | None = None,
        extinction_error: float | None = None,
        stream: str = "main",
        instream: str | None = None,
        outstream: str | None = None,
        skip_primitive: bool = False,
        write_outputs: bool = False,
    ) -> list[AstroData]:
        """Determine the zero point from the measurements in STDPHOT of the frames of a stack."""

    def dilateObjectMask(
        self,
        frames: list[AstroData] | None = None,
        *,
        suffix: str | None = "_objmaskDilated",
        dilation: float = 1.0,
        repeat: bool = False,
        stream: str = "main",
        instream: str | None = None,
        outstream: str | None = None,
        skip_primitive: bool = False,
        write_outputs: bool = False,
    ) -> list[AstroData]:
        """Grow the object mask by a disc; a mask that was grown before is left unless `repeat`."""

    def fixPixels(
        self,
        frames: list[AstroData] | None = None,
        *,
        suffix: str | None = "_pixelsFixed",
        regions: str | None = None,
        regions_file: Path | str | None = None,
        axis: Literal[1, 2] | None = None,
        use_local_median: bool = False,
        stream: str = "main",
        instream: str | None = None,
        outstream: str | None = None,
        skip_primitive: bool = False,
        write_outputs: bool = False,
    ) -> list[AstroData]:
        """Replace rectangles of pixels by straight lines between the good pixels beside them."""

    def flagCosmicRays(
        self,
        frames: list[AstroData] | None = None,
        *,
        suffix: str | None = "_CRMasked",
        sigclip: float = 4.5,
        sigfrac: float = 0.3,
        objlim: float = 5.0,
        niter: int = 4,
        least_fwhm: float = 2.0,
        clean: bool = False,
        stream: str = "main",
        instream: str | None = None,
        outstream: str | None = None,
        skip_primitive: bool = False,
        write_outputs: bool = False,
    ) -> list[AstroData]:
        """Flag (bit 8) what is sharper than any star: cosmic rays, found in the single frame."""

    def flagCosmicRaysByStacking(
        self,
        frames: list[AstroData] | None = None,
        *,
        suffix: str | None = "_CRMasked",
        hsigma: float = 7.0,
        dilation: float = 1.0,
        stream: str = "main",
        instream: str | None = None,
        outstream: str | None = None,
        skip_primitive: bool = False,
        write_outputs: bool = False,
    ) -> list[AstroData]:
        """Flag (bit 8) what one frame shows and the median of all frames does not."""

    def flagPersistence(
        self,
        frames: list[AstroData] | None = None,
        *,
        suffix: str | None = "_persistenceFlagged",
        threshold: float = 5000.0,
        exposures: int = 3,
        time: float = 900.0,
        limit: float = 0.5,
        stream: str = "main",
        instream: str | None = None,
        outstream: str | None = None,
        skip_primitive: bool = False,
        write_outputs: bool = False,
    ) -> list[AstroData]:
        """Flag (bit 8) the marks that bright sources have left in later frames, by their measured decay."""

    def flatCorrect(
        self,
        frames: list[AstroData] | None = None,
        *,
        suffix: str | None = "_flatCorrected",
        do_cal: Literal["procmode", "force", "skip"] = "procmode",
        flat: AstroData | Path | str | None = None,
        stream: str = "main",
        instream: str | None = None,
        outstream: str | None = None,
        skip_primitive: bool = False,
        write_outputs: bool = False,
    ) -> list[AstroData]:
        """Divide by the matching processed flat."""

    def flushPixels(
        self,
        frames: list[AstroData] | None = None,
        *,
        force: bool = False,
        stream: str = "main",
        instream: str | None = None,
        outstream: str | None = None,
        skip_primitive: bool = False,
        write_outputs: bool = False,
    ) -> list[AstroData]:
        """Move pixels from memory to disk; they come back by themselves when they are used."""

    def getBPM(
        self,
        frames: list[AstroData] | None = None,
        *,
        stream: str = "main",
        instream: str | None = None,
        outstream: str | None = None,
        skip_primitive: bool = False,
        write_outputs: bool = False,
    ) -> list[AstroData]:
        """Do what getProcessedBPM does: bad pixel masks of the archive are calibrations like the others."""

    def getList(
        self,
        frames: list[AstroData] | None = None,
        *,
        purpose: str | None = None,
        max_frames: int | None = None,
        stream: str = "main",
        instream: str | None = None,
        outstream: str | None = None,
        skip_primitive: bool = False,
        write_outputs: bool = False,
    ) -> list[AstroData]:
        """Return all frames on the lists of these frames' groups, in the order in which they were added."""

    def getProcessedBPM(
        self,
        frames: list[AstroData] | None = None,
        *,
        stream: str = "main",
        instream: str | None = None,
        outstream: str | None = None,
        skip_primitive: bool = False,
        write_outputs: bool = False,
    ) -> list[AstroData]:
        """Look up the bad pixel mask of each frame, and log it; `addDQ` will use the same."""

    def getProcessedDark(
        self,
        frames: list[AstroData] | None = None,
        *,
        stream: str = "main",
        instream: str | None = None,
        outstream: str | None = None,
        skip_primitive: bool = False,
        write_outputs: bool = False,
    ) -> list[AstroData]:
        """Look up the processed dark of each frame, and log it; `darkCorrect` will use the same."""

    def getProcessedFlat(
        self,
        frames: list[AstroData] | None = None,
        *,
        stream: str = "main",
        instream: str | None = None,
        outstream: str | None = None,
        skip_primitive: bool = False,
        write_outputs: bool = False,
    ) -> list[AstroData]:
        """Look up the processed flat of each frame, and log it; `flatCorrect` will use the same."""

    def keepCommonInputs(
        self,
        frames: list[AstroData] | None = None,
        *,
        source: str = "",
        stream: str = "main",
        instream: str | None = None,
        outstream: str | None = None,
        skip_primitive: bool = False,
        write_outputs: bool = False,
    ) -> list[AstroData]:
        """Keep the frames that another stream has too, in its order."""

    def makeBPM(
        self,
        frames: list[AstroData] | None = None,
        *,
        suffix: str | None = "_bpm",
        dark_lo_thresh: float | None = -20.0,
        dark_hi_thresh: float | None = 1300.0,
        flat_lo_thresh: float | None = 0.8,
        flat_hi_thresh: float | None = 1.25,
        keep_unilluminated: bool = False,
        max_bad: float = 0.3333333333333333,
        stream: str = "main",
        instream: str | None = None,
        outstream: str | None = None,
        skip_primitive: bool = False,
        write_outputs: bool = False,
    ) -> list[AstroData]:
        """Make a bad pixel mask from a normalised flat (main) and a stack of short darks (``darks``)."""

    def makeLampFlat(
        self,
        frames: list[AstroData] | None = None,
        *,
        suffix: str | None = "_lampstack",
        apply_dq: bool = True,
        statsec: str | None = None,
        operation: Literal["mean", "wtmean", "median", "lmedian"] = "mean",
        reject_method: Literal["none", "minmax", "sigclip", "varclip", "noiseclip"] = "sigclip",
        hsigma: float | None = None,
        lsigma: float | None = None,
        mclip: bool = True,
        max_iters: int | None = None,
        nlow: int = 0,
        nhigh: int = 0,
        memory: float | None = 1.0,
        save_rejection_map: bool = False,
        stream: str = "main",
        instream: str | None = None,
        outstream: str | None = None,
        skip_primitive: bool = False,
        write_outputs: bool = False,
    ) -> list[AstroData]:
        """Stack lamp-on and lamp-off flats and subtract the one stack from the other."""

    def makeSky(
        self,
        frames: list[AstroData] | None = None,
        *,
        suffix: str | None = "_skyMade",
        time: float = 900.0,
        distance: float = 1.0,
        min_skies: int | None = 3,
        max_skies: int | None = None,
        use_all: bool = False,
        sky: Sequence[AstroData | Path | str] | None = None,
        ref_obj: Sequence[str] | None = None,
        ref_sky: Sequence[str] | None = None,
        frac_FOV: float = 0.9,
        stream: str = "main",
        instream: str | None = None,
        outstream: str | None = None,
        skip_primitive: bool = False,
        write_outputs: bool = False,
    ) -> list[AstroData]:
        """Do what separateSky and associateSky do."""

    def measureBG(
        self,
        frames: list[AstroData] | None = None,
        *,
        suffix: str | None = "_bgMeasured",
        separate_ext: bool = False,
        stream: str = "main",
        instream: str | None = None,
        outstream: str | None = None,
        skip_primitive: bool = False,
        write_outputs: bool = False,
    ) -> list[AstroData]:
        """Measure the sky level, and with a nominal zero point the sky's brightness and BG percentile."""

    def measureCC(
        self,
        frames: list[AstroData] | None = None,
        *,
        suffix: str | None = "_ccMeasured",
        separate_ext: bool = False,
        extinction: float = 0.0,
        stream: str = "main",
        instream: str | None = None,
        outstream: str | None = None,
        skip_primitive: bool = False,
        write_outputs: bool = False,
    ) -> list[AstroData]:
        """Measure the photometric zero point on stars with reference magnitudes, and the cloud it implies."""

    def measureIQ(
        self,
        frames: list[AstroData] | None = None,
        *,
        suffix: str | None = "_iqMeasured",
        separate_ext: bool = False,
        display: bool = False,
        stream: str = "main",
        instream: str | None = None,
        outstream: str | None = None,
        skip_primitive: bool = False,
        write_outputs: bool = False,
    ) -> list[AstroData]:
        """Measure the image size on the good stars of OBJCAT, and compare it with the IQ percentiles."""

    def measureStandard(
        self,
        frames: list[AstroData] | None = None,
        *,
        suffix: str | None = "_standardMeasured",
        standards: Table | Path | str | None = None,
        only_own: bool = False,
        name: str | None = None,
        aperture: float = 4.0,
        radius: float = 60.0,
        search: float = 15.0,
        stream: str = "main",
        instream: str | None = None,
        outstream: str | None = None,
        skip_primitive: bool = False,
        write_outputs: bool = False,
    ) -> list[AstroData]:
        """Measure the standard star in every frame, into the table STDPHOT."""

    def mergeInputs(
        self,
        frames: list[AstroData] | None = None,
        *,
        stream: str = "main",
        instream: str | None = None,
        outstream: str | None = None,
        skip_primitive: bool = False,
        write_outputs: bool = False,
    ) -> list[AstroData]:
        """Put the extensions of all frames, in their order, into one frame."""

    def nonlinearityCorrect(
        self,
        frames: list[AstroData] | None = None,
        *,
        suffix: str | None = "_nonlinearityCorrected",
        stream: str = "main",
        instream: str | None = None,
        outstream: str | None = None,
        skip_primitive: bool = False,
        write_outputs: bool = False,
    ) -> list[AstroData]:
        """Correct the non-linearity of the detector, where its coefficients are known."""

    def normalizeFlat(
        self,
        frames: list[AstroData] | None = None,
        *,
        suffix: str | None = "_normalized",
        scale: Literal["mean", "median"] = "median",
        separate_ext: bool = False,
        stream: str = "main",
        instream: str | None = None,
        outstream: str | None = None,
        skip_primitive: bool = False,
        write_outputs: bool = False,
    ) -> list[AstroData]:
        """Divide a flat by the median (or mean) of its unflagged pixels; the variance by its square."""

    def prepare(
        self,
        frames: list[AstroData] | None = None,
        *,
        suffix: str | None = "_prepared",
        bad_wcs: Literal["exit", "fix", "new", "ignore"] = "fix",
        debug_consistency_limit: float = 30.0,
        distortion: Literal["published", "none"] = "published",
        require_wcs: bool = True,
        stream: str = "main",
        instream: str | None = None,
        outstream: str | None = None,
        skip_primitive: bool = False,
        write_outputs: bool = False,
    ) -> list[AstroData]:
        """Validate a raw frame and standardise its pixels, headers and WCS."""

    def rejectInputs(
        self,
        frames: list[AstroData] | None = None,
        *,
        at_start: int = 0,
        at_end: int = 0,
        stream: str = "main",
        instream: str | None = None,
        outstream: str | None = None,
        skip_primitive: bool = False,
        write_outputs: bool = False,
    ) -> list[AstroData]:
        """Drop frames from the ends of the list."""

    def removeFirstFrame(
        self,
        frames: list[AstroData] | None = None,
        *,
        remove_first: bool = True,
        remove_files: Sequence[str] | None = None,
        stream: str = "main",
        instream: str | None = None,
        outstream: str | None = None,
        skip_primitive: bool = False,
        write_outputs: bool = False,
    ) -> list[AstroData]:
        """Drop the frame that was taken first, whose bias level has not settled, and frames by name."""

    def removeFromInputs(
        self,
        frames: list[AstroData] | None = None,
        *,
        tags: Sequence[str] | None = None,
        stream: str = "main",
        instream: str | None = None,
        outstream: str | None = None,
        skip_primitive: bool = False,
        write_outputs: bool = False,
    ) -> list[AstroData]:
        """Drop the frames that have any of the tags; without tags keep all."""

    def requireSameInputs(
        self,
        frames: list[AstroData] | None = None,
        *,
        source: str = "",
        stream: str = "main",
        instream: str | None = None,
        outstream: str | None = None,
        skip_primitive: bool = False,
        write_outputs: bool = False,
    ) -> list[AstroData]:
        """Go on only if another stream has the same frames."""

    def resampleToCommonFrame(
        self,
        frames: list[AstroData] | None = None,
        *,
        target_wcs: AstroData | fits.Header | WCS | Path | str | None = None,
        suffix: str | None = "_align",
        interpolant: Literal["nearest", "linear", "poly3", "poly5", "spline3", "spline5"] = "poly3",
        clean_data: bool = True,
        dq_threshold: float | None = None,
        trim_data: bool = False,
        conserve: bool = True,
        reference: AstroData | Path | str | None = None,
        objmask: bool = True,
        stream: str = "main",
        instream: str | None = None,
        outstream: str | None = None,
        skip_primitive: bool = False,
        write_outputs: bool = False,
    ) -> list[AstroData]:
        """Put all frames on the pixel grid of the first, enlarged to hold every frame's field."""

    def scaleByExposureTime(
        self,
        frames: list[AstroData] | None = None,
        *,
        suffix: str | None = "_exposureTimeScaled",
        time: float | None = None,
        stream: str = "main",
        instream: str | None = None,
        outstream: str | None = None,
        skip_primitive: bool = False,
        write_outputs: bool = False,
    ) -> list[AstroData]:
        """Scale the counts of each frame to one exposure time."""

    def scaleByIntensity(
        self,
        frames: list[AstroData] | None = None,
        *,
        suffix: str | None = "_scaled",
        section: str | None = None,
        scaling: Literal["mean", "median"] = "mean",
        separate_ext: bool = False,
        stream: str = "main",
        instream: str | None = None,
        outstream: str | None = None,
        skip_primitive: bool = False,
        write_outputs: bool = False,
    ) -> list[AstroData]:
        """Multiply each frame so that its mean (or median) becomes that of the first."""

    def scaleCountsToReference(
        self,
        frames: list[AstroData] | None = None,
        *,
        suffix: str | None = "_countsScaled",
        tolerance: float = 0.0,
        use_common: bool = True,
        radius: float = 0.5,
        stream: str = "main",
        instream: str | None = None,
        outstream: str | None = None,
        skip_primitive: bool = False,
        write_outputs: bool = False,
    ) -> list[AstroData]:
        """Scale the counts of each frame to those of the first."""

    def selectFromInputs(
        self,
        frames: list[AstroData] | None = None,
        *,
        tags: Sequence[str] | None = None,
        stream: str = "main",
        instream: str | None = None,
        outstream: str | None = None,
        skip_primitive: bool = False,
        write_outputs: bool = False,
    ) -> list[AstroData]:
        """Keep the frames that have any of the tags; without tags keep all."""

    def separateFlatsDarks(
        self,
        frames: list[AstroData] | None = None,
        *,
        stream: str = "main",
        instream: str | None = None,
        outstream: str | None = None,
        skip_primitive: bool = False,
        write_outputs: bool = False,
    ) -> list[AstroData]:
        """Move darks into the stream ``darks`` and flats into the stream ``flats``; keep what is neither."""

    def separateSky(
        self,
        frames: list[AstroData] | None = None,
        *,
        suffix: str | None = "_skySeparated",
        ref_obj: Sequence[str] | None = None,
        ref_sky: Sequence[str] | None = None,
        frac_FOV: float = 0.9,
        stream: str = "main",
        instream: str | None = None,
        outstream: str | None = None,
        skip_primitive: bool = False,
        write_outputs: bool = False,
    ) -> list[AstroData]:
        """Tell object frames from sky frames; the latter become the stream ``sky``."""

    def shiftImages(
        self,
        frames: list[AstroData] | None = None,
        *,
        suffix: str | None = "_shift",
        interpolant: Literal["nearest", "linear", "poly3", "poly5", "spline3", "spline5"] = "poly3",
        clean_data: bool = True,
        dq_threshold: float | None = None,
        shifts: Sequence[tuple[float, float]] | Path | str | None = None,
        trim_data: bool = False,
        stream: str = "main",
        instream: str | None = None,
        outstream: str | None = None,
        skip_primitive: bool = False,
        write_outputs: bool = False,
    ) -> list[AstroData]:
        """Move the content of each frame by (dx, dy) pixels, onto one grid that holds all frames."""

    def showInputs(
        self,
        frames: list[AstroData] | None = None,
        *,
        stream: str = "main",
        instream: str | None = None,
        outstream: str | None = None,
        skip_primitive: bool = False,
        write_outputs: bool = False,
    ) -> list[AstroData]:
        """Log the names of the frames."""

    def showList(
        self,
        frames: list[AstroData] | None = None,
        *,
        purpose: str = "all",
        stream: str = "main",
        instream: str | None = None,
        outstream: str | None = None,
        skip_primitive: bool = False,
        write_outputs: bool = False,
    ) -> list[AstroData]:
        """Log the frames on the lists of these frames' groups; without frames, on all lists."""

    def skyCorrect(
        self,
        frames: list[AstroData] | None = None,
        *,
        suffix: str | None = "_skyCorrected",
        reset_sky: bool = False,
        scale_sky: bool = True,
        offset_sky: bool = False,
        save_sky: bool = False,
        propagate_variance: bool = True,
        level: Literal["auto", "peak", "median", "faint", "boxes"] = "auto",
        debug_threshold: float = 0.001,
        apply_dq: bool = True,
        statsec: str | None = None,
        operation: Literal["mean", "wtmean", "median", "lmedian"] = "median",
        reject_method: Literal["none", "minmax", "sigclip", "varclip", "noiseclip"] = "minmax",
        hsigma: float | None = None,
        lsigma: float | None = None,
        mclip: bool = True,
        max_iters: int | None = None,
        nlow: int = 1,
        nhigh: int = 1,
        memory: float | None = 1.0,
        save_rejection_map: bool = False,
        scale: bool = True,
        zero: bool = False,
        separate_ext: bool = True,
        mask_objects: bool = True,
        dilation: float = 2.0,
        mask_extended: bool = True,
        keep_skies: bool = True,
        own_level: bool = True,
        share: int = 1,
        stream: str = "main",
        instream: str | None = None,
        outstream: str | None = None,
        skip_primitive: bool = False,
        write_outputs: bool = False,
    ) -> list[AstroData]:
        """Combine for each frame the skies in its SKYTABLE, and subtract the result."""

    def sortInputs(
        self,
        frames: list[AstroData] | None = None,
        *,
        descriptor: str = "filename",
        reverse: bool = False,
        stream: str = "main",
        instream: str | None = None,
        outstream: str | None = None,
        skip_primitive: bool = False,
        write_outputs: bool = False,
    ) -> list[AstroData]:
        """Sort the frames by a descriptor or attribute; frames without a value come last."""

    def stackDarks(
        self,
        frames: list[AstroData] | None = None,
        *,
        suffix: str | None = "_stack",
        apply_dq: bool = True,
        statsec: str | None = None,
        operation: Literal["mean", "wtmean", "median", "lmedian"] = "mean",
        reject_method: Literal["none", "minmax", "sigclip", "varclip", "noiseclip"] = "varclip",
        hsigma: float | None = None,
        lsigma: float | None = None,
        mclip: bool = True,
        max_iters: int | None = None,
        nlow: int = 0,
        nhigh: int = 0,
        memory: float | None = 1.0,
        save_rejection_map: bool = False,
        stream: str = "main",
        instream: str | None = None,
        outstream: str | None = None,
        skip_primitive: bool = False,
        write_outputs: bool = False,
    ) -> list[AstroData]:
        """Combine darks of one exposure time, without scaling."""

    def stackFlats(
        self,
        frames: list[AstroData] | None = None,
        *,
        suffix: str | None = "_stack",
        apply_dq: bool = True,
        statsec: str | None = None,
        operation: Literal["mean", "wtmean", "median", "lmedian"] = "mean",
        reject_method: Literal["none", "minmax", "sigclip", "varclip", "noiseclip"] = "minmax",
        hsigma: float | None = None,
        lsigma: float | None = None,
        mclip: bool = True,
        max_iters: int | None = None,
        nlow: int = 1,
        nhigh: int = 1,
        memory: float | None = 1.0,
        save_rejection_map: bool = False,
        scale: bool = False,
        zero: bool = False,
        separate_ext: bool = True,
        stream: str = "main",
        instream: str | None = None,
        outstream: str | None = None,
        skip_primitive: bool = False,
        write_outputs: bool = False,
    ) -> list[AstroData]:
        """Combine flats, without offsets."""

    def stackFrames(
        self,
        frames: list[AstroData] | None = None,
        *,
        suffix: str | None = "_stack",
        apply_dq: bool = True,
        statsec: str | None = None,
        operation: Literal["mean", "wtmean", "median", "lmedian"] = "mean",
        reject_method: Literal["none", "minmax", "sigclip", "varclip", "noiseclip"] = "noiseclip",
        hsigma: float | None = None,
        lsigma: float | None = None,
        mclip: bool = True,
        max_iters: int | None = None,
        nlow: int = 0,
        nhigh: int = 0,
        memory: float | None = 1.0,
        save_rejection_map: bool = False,
        scale: bool = False,
        zero: bool = False,
        separate_ext: bool = True,
        level: bool = True,
        scale_flux: bool = False,
        weighting: Literal["none", "blurred", "all"] = "blurred",
        stream: str = "main",
        instream: str | None = None,
        outstream: str | None = None,
        skip_primitive: bool = False,
        write_outputs: bool = False,
    ) -> list[AstroData]:
        """Combine frames into one, leaving out outliers."""

    def stackSkyFlats(
        self,
        frames: list[AstroData] | None = None,
        *,
        suffix: str | None = "_stack",
        apply_dq: bool = True,
        statsec: str | None = None,
        operation: Literal["mean", "wtmean", "median", "lmedian"] = "mean",
        reject_method: Literal["none", "minmax", "sigclip", "varclip", "noiseclip"] = "minmax",
        hsigma: float | None = None,
        lsigma: float | None = None,
        mclip: bool = True,
        max_iters: int | None = None,
        nlow: int = 0,
        nhigh: int = 1,
        memory: float | None = 1.0,
        save_rejection_map: bool = False,
        scale: bool = True,
        zero: bool = False,
        separate_ext: bool = True,
        mask_objects: bool = True,
        stream: str = "main",
        instream: str | None = None,
        outstream: str | None = None,
        skip_primitive: bool = False,
        write_outputs: bool = False,
    ) -> list[AstroData]:
        """Combine dithered frames into one, leaving out the objects in each."""

    def stackSkyFrames(
        self,
        frames: list[AstroData] | None = None,
        *,
        suffix: str | None = "_skyStacked",
        apply_dq: bool = True,
        statsec: str | None = None,
        operation: Literal["mean", "wtmean", "median", "lmedian"] = "median",
        reject_method: Literal["none", "minmax", "sigclip", "varclip", "noiseclip"] = "minmax",
        hsigma: float | None = None,
        lsigma: float | None = None,
        mclip: bool = True,
        max_iters: int | None = None,
        nlow: int = 1,
        nhigh: int = 1,
        memory: float | None = 1.0,
        save_rejection_map: bool = False,
        scale: bool = True,
        zero: bool = False,
        separate_ext: bool = True,
        mask_objects: bool = True,
        dilation: float = 2.0,
        stream: str = "main",
        instream: str | None = None,
        outstream: str | None = None,
        skip_primitive: bool = False,
        write_outputs: bool = False,
    ) -> list[AstroData]:
        """Combine sky frames, leaving out the objects in them."""

    def standardizeHeaders(
        self,
        frames: list[AstroData] | None = None,
        *,
        suffix: str | None = "_headersStandardized",
        stream: str = "main",
        instream: str | None = None,
        outstream: str | None = None,
        skip_primitive: bool = False,
        write_outputs: bool = False,
    ) -> list[AstroData]:
        """Write what the headers mean as standard keywords."""

    def standardizeStructure(
        self,
        frames: list[AstroData] | None = None,
        *,
        suffix: str | None = "_structureStandardized",
        stream: str = "main",
        instream: str | None = None,
        outstream: str | None = None,
        skip_primitive: bool = False,
        write_outputs: bool = False,
    ) -> list[AstroData]:
        """Bring the pixels of old frames into the form of later ones."""

    def standardizeWCS(
        self,
        frames: list[AstroData] | None = None,
        *,
        suffix: str | None = "_wcsStandardized",
        bad_wcs: Literal["exit", "fix", "new", "ignore"] = "fix",
        debug_consistency_limit: float = 30.0,
        distortion: Literal["published", "none"] = "published",
        stream: str = "main",
        instream: str | None = None,
        outstream: str | None = None,
        skip_primitive: bool = False,
        write_outputs: bool = False,
    ) -> list[AstroData]:
        """Find the WCS that can be believed, and rebuild it where there is none."""

    def storeBPM(
        self,
        frames: list[AstroData] | None = None,
        *,
        suffix: str | None = "_bpm",
        stream: str = "main",
        instream: str | None = None,
        outstream: str | None = None,
        skip_primitive: bool = False,
        write_outputs: bool = False,
    ) -> list[AstroData]:
        """Mark frames as bad pixel masks (PROCBPM) and write them."""

    def storeProcessedDark(
        self,
        frames: list[AstroData] | None = None,
        *,
        suffix: str | None = "_dark",
        force: bool = False,
        stream: str = "main",
        instream: str | None = None,
        outstream: str | None = None,
        skip_primitive: bool = False,
        write_outputs: bool = False,
    ) -> list[AstroData]:
        """Mark frames as processed darks (PROCDARK) and write them."""

    def storeProcessedFlat(
        self,
        frames: list[AstroData] | None = None,
        *,
        suffix: str | None = "_flat",
        force: bool = False,
        stream: str = "main",
        instream: str | None = None,
        outstream: str | None = None,
        skip_primitive: bool = False,
        write_outputs: bool = False,
    ) -> list[AstroData]:
        """Mark frames as processed flats (PROCFLAT) and write them."""

    def storeProcessedScience(
        self,
        frames: list[AstroData] | None = None,
        *,
        suffix: str | None = None,
        stream: str = "main",
        instream: str | None = None,
        outstream: str | None = None,
        skip_primitive: bool = False,
        write_outputs: bool = False,
    ) -> list[AstroData]:
        """Mark frames as processed science images (PROCSCI) and write them into the output folder."""

    def storeProcessedStandard(
        self,
        frames: list[AstroData] | None = None,
        *,
        suffix: str | None = "_standard",
        stream: str = "main",
        instream: str | None = None,
        outstream: str | None = None,
        skip_primitive: bool = False,
        write_outputs: bool = False,
    ) -> list[AstroData]:
        """Mark stacks of a standard star with a zero point as processed standards (PROCSTND), and write them."""  # noqa: E501

    def subtractSky(
        self,
        frames: list[AstroData] | None = None,
        *,
        suffix: str | None = "_skySubtracted",
        reset_sky: bool = False,
        scale_sky: bool = True,
        offset_sky: bool = False,
        save_sky: bool = False,
        propagate_variance: bool = True,
        level: Literal["auto", "peak", "median", "faint", "boxes"] = "auto",
        debug_threshold: float = 0.001,
        sky: Sequence[AstroData | Path | str] | None = None,
        stream: str = "main",
        instream: str | None = None,
        outstream: str | None = None,
        skip_primitive: bool = False,
        write_outputs: bool = False,
    ) -> list[AstroData]:
        """Subtract a sky frame that exists already: one for all frames, or one for each."""

    def subtractSkyBackground(
        self,
        frames: list[AstroData] | None = None,
        *,
        suffix: str | None = "_skyBackgroundSubtracted",
        stream: str = "main",
        instream: str | None = None,
        outstream: str | None = None,
        skip_primitive: bool = False,
        write_outputs: bool = False,
    ) -> list[AstroData]:
        """Subtract the number in SKYLEVEL of the extension header."""

    def thresholdFlatfield(
        self,
        frames: list[AstroData] | None = None,
        *,
        suffix: str | None = "_thresholdFlatfielded",
        upper: float = 10.0,
        lower: float = 0.01,
        stream: str = "main",
        instream: str | None = None,
        outstream: str | None = None,
        skip_primitive: bool = False,
        write_outputs: bool = False,
    ) -> list[AstroData]:
        """Flag (bit 64) pixels outside the limits and set them to 1, so that a division stays finite."""

    def transferAttribute(
        self,
        frames: list[AstroData] | None = None,
        *,
        suffix: str | None = "_attributeTransferred",
        source: str | None = None,
        attribute: str | None = None,
        stream: str = "main",
        instream: str | None = None,
        outstream: str | None = None,
        skip_primitive: bool = False,
        write_outputs: bool = False,
    ) -> list[AstroData]:
        """Copy a plane, the WCS or a table from the frames of another stream."""

    def transferObjectMask(
        self,
        frames: list[AstroData] | None = None,
        *,
        suffix: str | None = "_objmaskTransferred",
        source: str | None = None,
        interpolant: Literal["nearest", "linear", "poly3", "poly5", "spline3", "spline5"] = "poly3",
        dq_threshold: float = 0.01,
        dilation: float = 1.5,
        stream: str = "main",
        instream: str | None = None,
        outstream: str | None = None,
        skip_primitive: bool = False,
        write_outputs: bool = False,
    ) -> list[AstroData]:
        """Project the object mask of the one frame of another stream onto these frames."""

    def validateData(
        self,
        frames: list[AstroData] | None = None,
        *,
        suffix: str | None = "_dataValidated",
        require_wcs: bool = True,
        stream: str = "main",
        instream: str | None = None,
        outstream: str | None = None,
        skip_primitive: bool = False,
        write_outputs: bool = False,
    ) -> list[AstroData]:
        """Check that a frame is one that the primitives can treat."""

    def writeOutputs(
        self,
        frames: list[AstroData] | None = None,
        *,
        overwrite: bool = True,
        outfilename: str | None = None,
        prefix: str = "",
        suffix: str = "",
        strip: bool = False,
        stream: str = "main",
        instream: str | None = None,
        outstream: str | None = None,
        skip_primitive: bool = False,
        write_outputs: bool = False,
    ) -> list[AstroData]:
        """Write the frames as they are now into the output folder."""
