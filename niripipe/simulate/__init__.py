"""NIRI nights with known truth, for tests, notebooks and whoever has no data yet.

`night` writes a complete night of raw frames from a seed and returns what was put in; `raw_frame` makes a
single frame with chosen headers; `score` compares a reduced stack with the truth.
"""

from niripipe.simulate.frames import RawFrame, raw_frame, write_frame
from niripipe.simulate.nights import Night, night, open_night
from niripipe.simulate.reality import FrameReality, Reality
from niripipe.simulate.scene import Galaxy, Scene, Star
from niripipe.simulate.scoring import Score, score
from niripipe.simulate.settings import Effects, NightPlan, Setup
from niripipe.simulate.truth import FrameTruth, Truth, read_truth

__all__ = [
    "Effects",
    "FrameReality",
    "FrameTruth",
    "Galaxy",
    "Night",
    "NightPlan",
    "RawFrame",
    "Reality",
    "Scene",
    "Score",
    "Setup",
    "Star",
    "Truth",
    "night",
    "open_night",
    "raw_frame",
    "read_truth",
    "score",
    "write_frame",
]
