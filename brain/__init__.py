"""Brain pushes PostgreSQL row changes to clients."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from brain.asgi import Authenticated, Authenticator, Connection, Settings, create_app

__all__ = ["Authenticated", "Authenticator", "Connection", "Settings", "__version__", "create_app"]

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """Import the application when it is asked for: that takes longer than most commands."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module("brain.asgi"), name)
