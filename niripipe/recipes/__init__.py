"""Recipes: plain functions of a primitives object, one module per kind of data.

Each module names the tags its recipes need (`recipe_tags`), tags that rule it out (`blocked_tags`), and,
for each mode, the recipes it offers (`recipes`), the first being the default.
"""
