"""How often alignment is wrong, or loses frames, in random fields: a table by number of stars.

Fields have 0 to 300 stars, dithers up to half a frame (60 arcsec at f/6), errors of the pointing of 0, 0.3,
5 or 30 arcsec, rotations that the header does not know up to 0.5 degrees, and a seeing of 3 to 25 pixels.
Positions are known to the maker of the frames alone. A shift is wrong beyond 0.2 pixel or 0.05 FWHM,
whichever is larger, in the mean of the stars that a frame and the reference show a FWHM inside their edges,
weighted by S/N: few stars show no rotation, so that a shift can only be right for them. A frame is good if
it shares three stars of S/N 30 with the reference, six where the pointing is wrong by 5 arcsec or more.
"""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tests.alignment_fields import STARS, Outcome, align_random_field


def row(name: str, some: list[Outcome]) -> str:
    """Return a line of the table."""
    kept = sum(o.kept for o in some)
    flagged = [o for o in some if o.kept and o.flagged]
    off = sum(o.wrong > o.limit for o in flagged)
    failed = sum(o.failed for o in some)
    good, lost = sum(o.good for o in some), sum(o.lost for o in some)
    part = f"{100 * lost / good:5.1f}" if good else "    -"
    counts = f"{len(some):6d} {kept:5d} {len(flagged):8d} {off:8d} {failed:10d} {good:5d} {lost:5d}"
    return f"{name:>5} {counts} {part}"


def main() -> None:
    """Print the table, and every failure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--fields", type=int, default=600)
    parser.add_argument("--size", type=int, default=384, help="side of the frames, pixels")
    parser.add_argument("--first", type=int, default=0, help="seed of the first field")
    given = parser.parse_args()
    logging.getLogger("niripipe").setLevel(logging.CRITICAL)
    outcomes: list[Outcome] = []
    for seed in range(given.first, given.first + given.fields):
        found = align_random_field(seed, size=given.size)
        outcomes += found
        for o in found:
            if o.failed or o.lost:
                what = "wrong" if o.failed else "lost"
                print(
                    f"# field {seed}: {what}, {o.stars} stars, pointing {o.pointing}, rotation {o.rotation}, "
                    f"{o.method}, off by {o.wrong:.2f} (limit {o.limit:.2f}) {o.reason[:150]}",
                    flush=True,
                )
    print("stars frames  kept  flagged of these  unflagged  good  lost     %")
    print("                              wrong  and wrong")
    for number in STARS:
        print(row(str(number), [o for o in outcomes if o.stars == number]))
    print(row("all", outcomes))


if __name__ == "__main__":
    main()
