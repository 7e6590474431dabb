"""
Keeps collections of Python's garbage collector short: they stop the whole process.

A collection of the oldest generation visits every container that is neither frozen nor younger, and
takes as long as there are such. Brain has few: what exists when it begins to serve is frozen, and
an event in the ring is none (`brain/message/event.py`).
"""

from __future__ import annotations

import gc


def freeze() -> None:
    """Exempt from all collections what exists now: to be called when everything has started."""
    gc.collect()
    gc.freeze()
