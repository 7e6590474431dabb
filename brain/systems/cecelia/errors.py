"""What can go wrong when a backend changes a task."""

from __future__ import annotations

from brain.errors import BrainError


class TaskError(BrainError):
    """A publishing call for tasks was refused."""


class UnknownTask(TaskError):
    """There is no task with this id."""


class UnknownStatus(TaskError):
    """A task cannot have this status."""


class ColumnMissing(TaskError):
    """The table of tasks, which Brain did not create, lacks a column that is to be set."""
