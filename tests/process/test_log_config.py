"""What a line of the log cannot be made to look like."""

from __future__ import annotations

import io
import logging
import logging.config

import pytest

from brain.process.log_config import LOGGING, WORKERS_LOGGING, LineFormatter

FORGED = "a\r\n2026-01-01 00:00:00 ERROR brain: forged \x1b[2J\x9b\u2028\u202e\x00"


@pytest.mark.parametrize("config", [LOGGING, WORKERS_LOGGING])
def test_a_record_is_one_line_and_its_traceback_is_indented(config: dict[str, object]) -> None:
    formatters = config["formatters"]
    assert isinstance(formatters, dict)
    formatter = LineFormatter(formatters["line"]["fmt"])
    output = io.StringIO()
    handler = logging.StreamHandler(output)
    handler.setFormatter(formatter)
    logger = logging.getLogger("a logger of this test")
    logger.propagate = False
    logger.addHandler(handler)
    try:
        try:
            raise ValueError(FORGED)
        except ValueError:
            logger.exception("failed: %s at postgresql://me:s3cr3t@host/d", FORGED)
    finally:
        logger.removeHandler(handler)
    first, *rest = output.getvalue().rstrip("\n").split("\n")
    assert "forged" in first and "s3cr3t" not in first
    assert first.isprintable()
    assert rest and all(line.startswith("  ") and line.isprintable() for line in rest)


def test_both_configurations_are_valid() -> None:
    for config in (LOGGING, WORKERS_LOGGING):
        made = logging.config.DictConfigurator(dict(config))
        formatters = config["formatters"]
        assert isinstance(formatters, dict)
        assert isinstance(made.configure_formatter(dict(formatters["line"])), LineFormatter)
