"""
How `brain listen` ends when it cannot go on.

BrainError
├── ListenRefused       Brain refuses what is asked for: exit 3
├── ListenClosed        Brain ended the connection for good: exit 4
└── GaveUp              no connection for as long as `--give-up` says: exit 5
"""

from __future__ import annotations

from brain.errors import BrainError


class EndedBySignal(Exception):
    """The command ends with 128 and the number of a signal, without a word."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


class ListenRefused(BrainError):
    """Brain refuses what is asked for, and would refuse it again."""

    exit_code = 3


class ListenClosed(BrainError):
    """Brain ended the connection, and would end the next one: the token has expired, for one."""

    exit_code = 4


class GaveUp(BrainError):
    """There was no connection for as long as `--give-up` says."""

    exit_code = 5
