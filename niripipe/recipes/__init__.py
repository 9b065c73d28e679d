"""Recipes: plain functions of a primitives object."""
