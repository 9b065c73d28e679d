"""The calibration service."""
