"""The parameters of queries that several addresses have, for documents."""

from __future__ import annotations

from brain.description.routes import Parameter

NUMBERS = Parameter(
    name="numbers",
    description="`string`: numbers that a double does not hold come as strings.",
    schema={"const": "string", "type": "string"},
)
OF_CHANNELS = (
    Parameter(
        name="channel",
        description="The channels to subscribe to, or rows of them, as in `tasks:task-123`.",
        schema={"type": "array", "items": {"type": "string"}},
    ),
    Parameter(
        name="where",
        description="A JSON object of watched columns, and the values that a row must have.",
        schema={"type": "string", "contentMediaType": "application/json"},
    ),
    Parameter(
        name="cursor",
        description="What happened since this cursor comes first. With it, also an empty one, every"
        " message has a cursor.",
    ),
    Parameter(
        name="snapshot",
        description="The rows of the tables come first. Every message has a cursor then.",
    ),
    Parameter(
        name="latest",
        description="`1`: while the client lags, superseded messages are skipped.",
    ),
    NUMBERS,
)
"""Those of `/ws`."""
