"""Simulated NIRI nights with known truth."""
