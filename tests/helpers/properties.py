"""How many examples the tests of properties draw: all with --long, else a quarter."""

from __future__ import annotations

from hypothesis import settings

for _name, _percent in (("long", 100), ("short", 25)):
    settings.register_profile(_name, max_examples=_percent, deadline=None)


def examples(count: int) -> int:
    """Return the share of a number of examples that the profile asks for, at least five."""
    return max(count * settings().max_examples // 100, 5)
