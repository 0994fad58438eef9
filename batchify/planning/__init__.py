"""Decide which sample goes to which row: split, groups, duplicates, order."""
