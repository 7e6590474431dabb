"""The SQL of tables that several systems read."""

from __future__ import annotations

from pathlib import Path

from brain.database.schema_files import Schema

TASKS = Schema("tasks", Path(__file__).parent / "tasks")
AGENTS = Schema("agents", Path(__file__).parent / "agents")
