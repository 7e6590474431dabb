"""
Which revision of the schema this Brain has, and which older ones it keeps serving.

A revision is all SQL of Brain, that of its systems included, as one release or several have it. In
a rolling upgrade the database has the new revision while nodes of the release before still run. So
a revision says from which one on a Brain works with it: for what it renames or removes it keeps the
old until no supported Brain uses that (docs/upgrading.md).
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Revision:
    """A numbered state of a schema."""

    number: int
    """Higher than that of any release with other files."""
    since: str
    """The first release that has it."""
    serves: int
    """The oldest revision with a release that works on a database of this one."""
    sha256: str | None = None
    """Of all files, once they are released: from then on a change needs another revision."""


REVISIONS: tuple[Revision, ...] = (Revision(1, since="Brain 0.1.0", serves=1),)
"""Those of Brain, the oldest first; the last is that of this release."""
