"""The codes with which Brain closes a WebSocket, or ends a stream."""

from __future__ import annotations

from enum import IntEnum


class CloseCode(IntEnum):
    """
    Every code with which Brain closes a WebSocket or ends a stream.

    docs/protocol.md says what a client does then.

    4000 to 4499: reconnect. 4500 to 4999: do not. Below 4000: as RFC 6455, section 7.4.1, and
    IANA's registry have them.
    """

    GOING_AWAY = 1001
    PROTOCOL_ERROR = 1002
    UNSUPPORTED_DATA = 1003
    INVALID_TEXT = 1007
    MESSAGE_TOO_BIG = 1009
    INTERNAL_ERROR = 1011
    SERVICE_RESTART = 1012
    TRY_AGAIN_LATER = 1013
    SLOW_CONSUMER = 4008
    HISTORY_LOST = 4009
    LOG_UNAVAILABLE = 4010
    RATE_LIMITED = 4029
    TOKEN_EXPIRED = 4401
    CLIENT_TIMEOUT = 4408
    SNAPSHOT_TOO_LARGE = 4500
    NESTED_TOO_DEEPLY = 4501
    TOKENS_REVOKED = 4503
    ACCESS_LOST = 4504
