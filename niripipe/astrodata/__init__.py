"""The data container."""
