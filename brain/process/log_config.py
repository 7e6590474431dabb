"""Where log lines go, and how they look."""

from __future__ import annotations

from typing import Any

LOGGING: dict[str, Any] = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"line": {"format": "%(asctime)s %(levelname)s %(name)s: %(message)s"}},
    "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "line"}},
    "loggers": {
        "brain": {"level": "INFO"},
        # At INFO it logs the address of every WebSocket, and with it what stands in the query.
        "uvicorn": {"level": "WARNING"},
    },
    "root": {"level": "WARNING", "handlers": ["stderr"]},
}
# All workers write to the same stream.
WORKERS_LOGGING: dict[str, Any] = {
    **LOGGING,
    "formatters": {
        "line": {"format": "%(asctime)s [%(process)d] %(levelname)s %(name)s: %(message)s"}
    },
}
