"""Running recipes."""
