"""What a client may read, asked for as it subscribes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from brain.message.matching import ReadAccess, RowAccess


@dataclass(frozen=True, slots=True)
class JoinedAccess:
    """What an identity may read, as `ReadAccess` has it."""

    readable: frozenset[str]
    row_access: Mapping[str, RowAccess | None]

    def __call__(self, name: str) -> bool:
        return name in self.readable

    def rows(self, channel: str) -> RowAccess | None:
        return self.row_access.get(channel)


def joined(
    former: ReadAccess, former_names: Iterable[str], access: ReadAccess, names: Iterable[str]
) -> JoinedAccess:
    """Return what `access` says of `names`, and `former` of the other names."""
    answers = dict.fromkeys(former_names, former) | dict.fromkeys(names, access)
    return JoinedAccess(
        frozenset(name for name, answer in answers.items() if answer(name)),
        {name: answer.rows(name) for name, answer in answers.items()},
    )
