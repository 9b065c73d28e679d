"""The NIRI primitives."""
