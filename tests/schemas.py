"""The schemas that tests apply."""

from __future__ import annotations

from brain.database.schema_files import Schema
from brain.system import installed_systems, schemas_of


def every_schema() -> list[Schema]:
    """Return the schemas of the core and of all systems."""
    return schemas_of(installed_systems().values())
