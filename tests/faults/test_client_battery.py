"""Two seeds of the battery for clients. `python -m tests.faults.client_battery` plays more."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.async_api import Browser

from tests.end_to_end.test_page import browser
from tests.faults.client_battery.bundle import bundle
from tests.faults.client_battery.scenes import PAGES, SCENES, Players, Screen, play
from tests.faults.client_battery.surroundings import Server
from tests.node_packages import node_packages

__all__ = ["browser", "node_packages"]

SEEDS = (1, 2)


@pytest.fixture(scope="session")
def server(postgres: str, template: str) -> Server:
    return Server(postgres, template)


@pytest.fixture(scope="session")
async def screen(browser: Browser, node_packages: Path) -> Screen:
    return Screen(browser, await bundle(node_packages))


@pytest.fixture(autouse=True)
def losses_are_meant() -> Iterator[None]:
    """Keep the client from logging each connection that the battery cuts."""
    logger = logging.getLogger("brain.client")
    before = logger.level
    logger.setLevel(logging.CRITICAL)
    yield
    logger.setLevel(before)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("name", PAGES)
async def test_a_react_table_shows_committed_states_alone_and_the_rows_in_the_end(
    name: str, seed: int, server: Server, screen: Screen, tmp_path: Path
) -> None:
    await play(name, seed, Players(server, tmp_path, screen))


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("name", [name for name in SCENES if name not in PAGES])
async def test_a_program_is_sent_each_change_once(
    name: str, seed: int, server: Server, tmp_path: Path
) -> None:
    await play(name, seed, Players(server, tmp_path))
