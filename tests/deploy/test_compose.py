"""The compose files, held to Docker's specification and to Brain; no engine runs them."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import asyncpg
import pytest
import yaml
from compose_spec import PyCompose

from brain.database.connection import connected
from brain.embedded.server import serve_embedded
from brain.settings import Settings, unknown_variables
from tests.end_to_end.brain import brain, ended

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "deploy" / "compose"
FILES = [ROOT / "docker-compose.yml", FOLDER / "compose.yaml"]
VARIABLE = re.compile(r"\$\{(\w+):\?[^}]*\}")

Services = dict[str, dict[str, Any]]


def services(file: Path) -> Services:
    found: Services = yaml.safe_load(file.read_text())["services"]
    return found


@pytest.fixture
def example() -> Services:
    return services(FOLDER / "compose.yaml")


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_a_compose_file_is_one(file: Path) -> None:
    assert "brain" in PyCompose.from_yaml(file.read_text()).service_names()


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("read_only: true", "readonly: true"),
        ("interval: 2s", "interval: 2 parsecs"),
        ("condition: service_healthy", "condition: healthy"),
    ],
)
def test_a_mistake_in_a_compose_file_is_found(right: str, wrong: str) -> None:
    text = (FOLDER / "compose.yaml").read_text()
    assert right in text
    with pytest.raises(Exception, match="services"):
        PyCompose.from_yaml(text.replace(right, wrong))


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_what_a_compose_file_refers_to_exists(file: Path) -> None:
    document = yaml.safe_load(file.read_text())
    for service in document["services"].values():
        assert set(service.get("depends_on", [])) <= document["services"].keys()
        assert set(service.get("networks", [])) <= document.get("networks", {}).keys()
        if "build" in service:
            assert (file.parent / service["build"] / "Dockerfile").is_file()
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            exists = (
                (file.parent / source).exists() if "/" in source else source in document["volumes"]
            )
            assert exists, volume


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_every_setting_in_a_compose_file_is_one_of_brains(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    environment = services(file)["brain"]["environment"]
    assert list(unknown_variables(environment)) == []
    for name, value in environment.items():
        monkeypatch.setenv(name, VARIABLE.sub("x" * 32, value))
    settings = Settings()
    # The image listens on all addresses.
    assert settings.allowed_hosts
    assert settings.database_url is not None


def test_the_example_of_settings_has_every_variable_and_no_other() -> None:
    named = re.findall(r"^(\w+)=", (FOLDER / ".env.example").read_text(), re.MULTILINE)
    assert set(named) == set(VARIABLE.findall((FOLDER / "compose.yaml").read_text()))


def test_brain_is_reached_by_the_proxy_alone_and_may_write_nowhere(example: Services) -> None:
    brain_service = example["brain"]
    assert "ports" not in brain_service and "ports" not in example["postgres"]
    assert brain_service["read_only"] is True
    assert brain_service["cap_drop"] == ["ALL"]
    assert brain_service["ulimits"]["nofile"] >= Settings().max_connections + 5_000
    grace = int(brain_service["stop_grace_period"].removesuffix("s"))
    assert grace > Settings().drain_seconds + Settings().shutdown_seconds + 10


@pytest.mark.skipif(shutil.which("caddy") is None, reason="there is no caddy")
async def test_caddy_leads_to_brain(example: Services) -> None:
    adapted = await ended(
        ["caddy", "adapt", "--config", str(FOLDER / "Caddyfile"), "--adapter", "caddyfile"],
        {"BRAIN_HOST_NAME": "brain.example.org"},
    )
    assert adapted.status == 0, adapted.stderr
    assert f'"dial":"brain:{Settings().port}"' in adapted.stdout
    assert "brain.example.org" in json.dumps(json.loads(adapted.stdout)["apps"]["http"])


@pytest.fixture
def new_server(tmp_path: Path) -> Iterator[str]:
    """The URL of a server on which nothing of Brain's exists, as its superuser."""
    with serve_embedded(tmp_path / "postgres", superuser=True) as server:
        yield server.url


@pytest.fixture
async def as_brain(new_server: str) -> AsyncIterator[str]:
    """The URL of a database that `database.sh` has prepared, as the role that it made."""
    parts = urlsplit(new_server)
    environment = {
        "PGHOST": parts.hostname or "",
        "PGPORT": str(parts.port),
        "POSTGRES_USER": parts.username or "",
        "POSTGRES_DB": parts.path[1:],
        "BRAIN_DATABASE_PASSWORD": "it's",
    }
    prepared = await ended(["sh", str(FOLDER / "database.sh")], environment)
    assert (prepared.status, prepared.stderr) == (0, "")
    yield f"{new_server}?role=brain_service"


@pytest.mark.skipif(shutil.which("psql") is None, reason="there is no psql")
async def test_the_role_of_the_example_can_migrate_and_watch(as_brain: str) -> None:
    migrated = await brain("migrate", "--database-url", as_brain)
    assert migrated.status == 0, migrated.stderr
    async with connected(as_brain) as connection:
        is_superuser = "SELECT rolsuper FROM pg_roles WHERE rolname = current_user"
        assert await connection.fetchval(is_superuser) is False
    owner: asyncpg.Connection = await asyncpg.connect(as_brain.partition("?")[0])
    await owner.execute("CREATE TABLE orders (id int PRIMARY KEY)")
    await owner.execute("GRANT TRIGGER ON orders TO brain_service")
    await owner.execute("GRANT SELECT (id) ON orders TO brain_reader")
    await owner.close()
    watched = await brain("watch", "orders", "--columns", "id", "--database-url", as_brain)
    assert (watched.status, watched.stderr) == (0, "")
