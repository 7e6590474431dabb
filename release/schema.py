"""Prints the checksum of all SQL of Brain, by which a released revision is known again."""

from __future__ import annotations

import hashlib

from brain.system import installed_systems, schemas_of


def schema_sha256() -> str:
    """Return the checksum of the files and the upgrades of the core and of Brain's systems."""
    systems = [
        system
        for system in installed_systems().values()
        if type(system).__module__.startswith("brain.systems.")
    ]
    steps = [
        step for schema in schemas_of(systems) for step in (schema.current(), *schema.upgrades())
    ]
    texts = "".join(f"{step} {step.sha256}\n" for step in steps)
    return hashlib.sha256(texts.encode()).hexdigest()


if __name__ == "__main__":
    print(schema_sha256())
