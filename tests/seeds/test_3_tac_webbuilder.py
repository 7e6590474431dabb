"""The examples in documents/3-tac-webbuilder.md, against a running Brain."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import sys
import types
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from httpx2 import AsyncClient
from starlette import testclient

from brain.app import build_app
from brain.settings import Settings
from tests.end_to_end.brain import RunningBrain, ended, has_sent_everything, message
from tests.end_to_end.following import QUICKLY, following, state

DOCUMENT = (Path(__file__).parent / "documents" / "3-tac-webbuilder.md").read_text()

# The path of each hook, and for each of its return values the key in the data. The client makes
# the others itself (isConnected, connectionQuality, lastUpdated, reconnectAttempts).
HOOKS: dict[str, tuple[str, dict[str, str]]] = {
    "useWorkflowsWebSocket": ("workflows", {"workflows": ""}),
    "useRoutesWebSocket": ("routes", {"routes": ""}),
    "useWorkflowHistoryWebSocket": (
        "workflow-history",
        {"workflows": "workflows", "totalCount": "total_count", "analytics": "analytics"},
    ),
    "useADWStateWebSocket": ("adw-state/adw-1", {"state": ""}),
    "useADWMonitorWebSocket": (
        "adw-monitor",
        {"workflows": "workflows", "summary": "summary", "lastUpdated": "last_updated"},
    ),
    "useQueueWebSocket": ("queue", {"phases": "phases", "paused": "paused"}),
    "useSystemStatusWebSocket": ("system-status", {"systemStatus": ""}),
    "useWebhookStatusWebSocket": ("webhook-status", {"webhookStatus": ""}),
}
CLIENTS_OWN = {"isConnected", "connectionQuality", "lastUpdated", "reconnectAttempts"}

ROWS = """
    INSERT INTO workflows (id, name, start_time) VALUES ('123', 'Test Workflow', '2025-12-11T10:00:00Z');
    INSERT INTO routes (path, method) VALUES ('/api/workflows', 'GET');
    INSERT INTO workflow_history (id, name, status, duration, ended_at)
    SELECT CASE n WHEN 1 THEN '123' ELSE 'w' || n END, 'Completed Workflow',
           CASE WHEN n <= 42 THEN 'success' WHEN n <= 44 THEN 'failed' ELSE 'cancelled' END,
           CASE n WHEN 1 THEN 120 WHEN 2 THEN 240 ELSE 180 END,
           timestamptz '2025-12-11' - n * interval '1 hour'
      FROM generate_series(1, 50) n;
    INSERT INTO adw_states (
        adw_id, issue_number, status, branch_name, plan_file, issue_class, worktree_path, backend_port,
        frontend_port, model_set, all_adws, workflow_template, model_used, start_time, nl_input,
        github_url, details)
    VALUES ('adw-1', '123', 'running', 'feature/123', 'plan.md', '/feature', '/trees/adw-1', 9100,
        9200, 'base', '{adw_plan,adw_build}', 'sdlc', 'a model', '2025-12-11T10:00:00Z', 'make it so',
        'https://example.org/issues/123', '{"of_its_own": {"deep": null}}');
    INSERT INTO adw_states (adw_id, status) VALUES ('adw-2', 'completed'), ('adw-3', 'failed'),
        ('adw-4', 'paused'), ('adw-5', 'queued');
    INSERT INTO phase_queue (queue_id, issue_number, phase, status, priority, parent_issue, metadata)
    VALUES (1, '123', 'test', 'ready', 1, '122', '{"tries": null}'), (2, '123', 'b', 'queued', 2, NULL, NULL),
        (3, '123', 'c', 'queued', 3, NULL, NULL), (4, '123', 'd', 'queued', 4, NULL, NULL),
        (5, '123', 'e', 'queued', 5, NULL, NULL);
    UPDATE system_status SET overall_status = 'healthy', details = '{"services": {"db": "up"}}';
    UPDATE webhook_status SET status = 'healthy';
"""  # noqa: E501


def snippets(language: str, containing: str, text: str = DOCUMENT) -> list[str]:
    """Return the code blocks of the document that contain a text, as they stand."""
    blocks = re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)
    return [block for block in blocks if containing in block]


def section(hook: str) -> str:
    """Return the document's section about a hook."""
    found = re.search(rf"### \d\. {hook}\(\)\n(.*?)\n---\n", DOCUMENT, re.DOTALL)
    assert found is not None
    return found[1]


def returned(hook: str) -> str:
    """Return the block of a hook's return values."""
    found = re.search(r"\*\*Return Values:\*\*\n```typescript\n(.*?)```", section(hook), re.DOTALL)
    assert found is not None
    return found[1]


def fields(declaration: str) -> dict[str, tuple[str, bool]]:
    """Return the type of each field of a TypeScript type, and whether it is optional."""
    found = re.findall(r"^\s+(\w+)(\??): ([^;]+);", declaration, re.MULTILINE)
    return {name: (type, bool(optional)) for name, optional, type in found}


def interface(name: str) -> dict[str, tuple[str, bool]]:
    found = re.search(rf"interface {name} \{{(.*?)\n\}}", DOCUMENT, re.DOTALL)
    assert found is not None
    return fields(found[1])


def is_of(type: str, value: Any) -> bool:
    """Return True if a value is of a TypeScript type, of those that the document uses."""
    match type:
        case "any":
            return True
        case "string":
            return isinstance(value, str)
        case "number":
            return isinstance(value, int | float) and not isinstance(value, bool)
        case "boolean":
            return isinstance(value, bool)
        case "string[]":
            return isinstance(value, list) and all(isinstance(each, str) for each in value)
    raise AssertionError(type)


def fits(declared: dict[str, tuple[str, bool]], value: dict[str, Any]) -> bool:
    """Return True if an object has the declared fields."""
    return all(
        is_of(type, value[name]) if name in value else is_optional
        for name, (type, is_optional) in declared.items()
    )


def holds(real: Any, printed: Any) -> bool:
    """Return True if all that is printed is there: each key, and the beginning of each list."""
    if isinstance(printed, dict):
        return isinstance(real, dict) and all(
            key in real and holds(real[key], value) for key, value in printed.items()
        )
    if isinstance(printed, list):
        return len(real) >= len(printed) and all(map(holds, real, printed))
    return bool(real == printed)


@pytest.fixture(scope="module")
def brain_settings() -> dict[str, str]:
    return QUICKLY


@pytest.fixture
def database(shared_database: str) -> str:
    return shared_database


@pytest.fixture
async def brain(
    module_brain: RunningBrain, database: str, connection: asyncpg.Connection
) -> RunningBrain:
    await connection.execute(ROWS)
    await has_sent_everything(module_brain, database)
    return module_brain


async def first_message(brain: RunningBrain, path: str) -> dict[str, Any]:
    async with following(brain, path) as client:
        return await message(client)


async def polled(brain: RunningBrain, path: str) -> Any:
    async with AsyncClient(trust_env=False) as client:
        return (await client.get(f"{brain.http}/api/{path}")).json()


def test_every_hook_of_the_document_is_tested_here() -> None:
    assert re.findall(r"^### \d\. (\w+)\(\)", DOCUMENT, re.MULTILINE) == list(HOOKS)


async def test_every_endpoint_of_the_table_sends_the_message_of_the_table(
    brain: RunningBrain,
) -> None:
    urls = re.findall(r"^\| [\w ]+ \| `/ws/(\S+)` \|", DOCUMENT, re.MULTILINE)
    found = re.findall(r"^\| `(\w+_update)` \| .+ \| (.+) \|", DOCUMENT, re.MULTILINE)
    assert len(urls) == len(found) == 8

    for path, (type, data_format) in zip(urls, found, strict=True):
        received = await first_message(brain, path.format(adw_id="adw-1"))

        assert received["type"] == type
        assert isinstance(received["data"], list) == ("[]" in data_format)
        if named := re.search(r"\{ (.+) \}", data_format):
            keys = {key for key in named[1].split(", ") if not key.startswith("...")}
            assert keys <= set(received["data"])


async def test_a_server_message_has_the_keys_of_the_standard_format(brain: RunningBrain) -> None:
    (declared,) = snippets("typescript", "// Message type identifier")
    for path, _ in HOOKS.values():
        received = await first_message(brain, path)
        assert fits(fields(declared), received)
        assert set(received) <= set(fields(declared))


@pytest.mark.parametrize(
    ("path", "type"),
    [
        ("workflows", "workflows_update"),
        ("workflow-history", "workflow_history_update"),
        ("queue", "queue_update"),
    ],
)
async def test_the_printed_messages_are_sent_key_by_key(
    brain: RunningBrain, path: str, type: str
) -> None:
    (printed,) = (json.loads(text) for text in snippets("json", f'"{type}"'))

    received = await first_message(brain, path)

    assert holds(received, printed)
    if path == "workflows":
        assert received == printed


@pytest.mark.parametrize("hook", HOOKS)
async def test_a_hook_finds_what_it_returns_and_what_its_component_shows(
    brain: RunningBrain, hook: str
) -> None:
    path, places = HOOKS[hook]
    data = (await first_message(brain, path))["data"]
    values = {name: data[key] if key else data for name, key in places.items()}

    names = set(re.findall(r"^  (\w+): ", returned(hook), re.MULTILINE))
    assert names - CLIENTS_OWN == set(places) - CLIENTS_OWN
    assert all(value is not None for value in values.values())
    # As in `{workflow.status}`, where `workflows.map(workflow => …)`.
    usage = section(hook).partition("return (")[2].partition("```")[0]
    elements = {each: values[name] for name, each in re.findall(r"(\w+)\.map\((\w+) =>", usage)}
    shown = re.findall(r"\b(\w+)\??\.(\w+)\b(?!\()", usage)
    assert shown
    for name, key in shown:
        objects = elements[name] if name in elements else [values[name]]
        assert objects, name
        assert all(key in each for each in objects), (name, key)


async def test_the_types_that_are_printed_are_those_of_the_data(brain: RunningBrain) -> None:
    history = (await first_message(brain, "workflow-history"))["data"]
    assert fits(interface("HistoryAnalytics"), history["analytics"])
    assert set(interface("HistoryAnalytics")) == set(history["analytics"])

    monitor = (await first_message(brain, "adw-monitor"))["data"]
    assert fits(interface("AdwMonitorSummary"), monitor["summary"])
    assert monitor["summary"] == {
        "total": 5,
        "running": 1,
        "completed": 1,
        "failed": 1,
        "paused": 1,
    }
    assert list(monitor) == ["summary", "workflows", "last_updated"]

    queue = (await first_message(brain, "queue"))["data"]
    item = interface("PhaseQueueItem")
    assert all(fits(item, phase) and set(phase) <= set(item) for phase in queue["phases"])
    assert set(queue["phases"][0]) == set(item)
    assert (queue["total"], queue["paused"]) == (5, False)


async def test_the_state_of_an_adw_has_every_field_and_further_ones(brain: RunningBrain) -> None:
    declared = fields(returned("useADWStateWebSocket").split("{\n")[2].split("\n  }")[0])
    assert len(declared) == 16

    data = (await first_message(brain, "adw-state/adw-1"))["data"]
    assert fits(declared, data)
    assert set(data) == {*declared, "of_its_own"}
    assert data["of_its_own"] == {"deep": None}
    assert (await first_message(brain, "adw-state/adw-2"))["data"] == {
        "adw_id": "adw-2",
        "status": "completed",
    }
    assert (await first_message(brain, "adw-state/unknown"))["data"] is None


async def test_times_are_iso_8601_and_end_in_z(brain: RunningBrain) -> None:
    time = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ")
    (workflow,) = (await first_message(brain, "workflows"))["data"]
    adw = (await first_message(brain, "adw-state/adw-1"))["data"]
    monitor = (await first_message(brain, "adw-monitor"))["data"]
    phase = (await first_message(brain, "queue"))["data"]["phases"][0]

    assert workflow["start_time"] == adw["start_time"] == "2025-12-11T10:00:00Z"
    assert time.fullmatch(monitor["last_updated"])
    assert time.fullmatch(phase["created_at"]) and time.fullmatch(phase["updated_at"])


@pytest.mark.skipif(shutil.which("node") is None, reason="needs Node.js")
async def test_the_urls_of_the_frontend_configuration_lead_to_the_feeds(
    brain: RunningBrain,
) -> None:
    (config,) = snippets("typescript", "export const apiConfig")
    script = config.replace("export ", "").replace("adwId: string", "adwId")
    script = f"""
        const API_BASE = 'localhost:{brain.port}';
        {script}
        console.log(JSON.stringify(
            Object.entries(apiConfig.websocket).map(([name, url]) => [name, url('adw-1')])));
    """
    done = await ended(["node", "-e", script])
    assert done.status == 0, done.stderr
    urls = dict(json.loads(done.stdout))

    assert list(urls) == [
        *("workflows", "routes", "workflowHistory", "adwState"),
        *("adwMonitor", "queue", "systemStatus", "webhookStatus"),
    ]
    for name, url in urls.items():
        base, path = url.split("/ws/")
        assert base == f"wss://localhost:{brain.port}"
        snake = re.sub("([A-Z])", r"_\1", name).lower()
        assert (await first_message(brain, path))["type"] == f"{snake}_update"


def test_the_backend_test_of_the_document_passes(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (snippet,) = snippets("python", "def test_websocket_workflows")
    with ExitStack() as stack:

        def started(app: Any) -> testclient.TestClient:
            return stack.enter_context(testclient.TestClient(app))

        # FastAPI's client is Starlette's; as a context, it runs the lifespan of the application.
        stand_in = types.ModuleType("fastapi.testclient")
        stand_in.__dict__["TestClient"] = started
        monkeypatch.setitem(sys.modules, "fastapi", types.ModuleType("fastapi"))
        monkeypatch.setitem(sys.modules, "fastapi.testclient", stand_in)
        settings = Settings(allowed_hosts=("testserver",))
        printed: dict[str, Any] = {"app": build_app(database, settings)}
        exec(compile(snippet, "the document", "exec"), printed)

        printed["test_websocket_workflows"]()


async def test_the_service_of_the_document_broadcasts_by_updating_the_database(
    brain: RunningBrain, connection: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Clients receive what it passes to `manager.broadcast`, although that sends nothing here."""
    (snippet,) = snippets("python", "async def update_workflow_status")
    broadcasts: list[Any] = []

    class Workflow(dict[str, Any]):
        def model_dump(self) -> dict[str, Any]:
            return dict(self)

    class Manager:
        async def broadcast(self, message: Any) -> None:
            broadcasts.append(message)

    class Repository:
        def update_status(self, workflow_id: str, status: str) -> Workflow:
            update = connection.execute(
                "UPDATE workflows SET status = $1 WHERE id = $2", status, workflow_id
            )
            writing.append(asyncio.ensure_future(update))
            return Workflow(
                id=workflow_id,
                name="Test Workflow",
                status=status,
                start_time="2025-12-11T10:00:00Z",
            )

    writing: list[asyncio.Future[str]] = []
    module = types.ModuleType("app.server.routes.websocket_routes")
    module.__dict__["manager"] = Manager()
    for name in ("app", "app.server", "app.server.routes"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    monkeypatch.setitem(sys.modules, module.__name__, module)
    service: dict[str, Any] = {"repository": Repository()}
    exec(compile(snippet, "the document", "exec"), service)

    async with following(brain, "workflows") as client:
        assert (await state(client))[0]["status"] == "running"
        await service["update_workflow_status"]("123", "paused")
        await writing[0]
        assert await message(client) == broadcasts[0]


async def test_a_client_lost_without_a_close_does_not_delay_the_others(
    brain: RunningBrain, connection: asyncpg.Connection
) -> None:
    async with (
        following(brain, "routes") as one,
        following(brain, "routes") as gone,
        following(brain, "routes") as two,
    ):
        for client in (one, gone, two):
            await state(client)
        gone.transport.abort()
        await connection.execute("DELETE FROM routes")
        assert await state(one) == await state(two) == []


async def test_a_client_may_send_any_text_and_stays_connected(
    brain: RunningBrain, connection: asyncpg.Connection
) -> None:
    async with following(brain, "queue") as client:
        await state(client)
        for text in ("ping", '{"type": "ping"}', ""):
            await client.send(text)
        await connection.execute("UPDATE phase_queue_state SET paused = true")
        assert (await state(client))["paused"] is True


@pytest.mark.parametrize("hook", HOOKS)
async def test_http_returns_the_bare_data_that_the_websocket_sends(
    brain: RunningBrain, hook: str
) -> None:
    path, _ = HOOKS[hook]
    assert await polled(brain, path) == (await first_message(brain, path))["data"]


async def test_a_client_that_reconnects_gets_the_whole_state_again(
    brain: RunningBrain, connection: asyncpg.Connection
) -> None:
    (config,) = snippets("typescript", "maxReconnectAttempts: 10")
    attempts = int(fields_of_config(config)["maxReconnectAttempts"])
    for attempt in range(attempts):
        await connection.execute(
            "UPDATE system_status SET details = jsonb_build_object('n', $1::int)", attempt
        )
        async with following(brain, "system-status") as client:
            assert (await state(client))["n"] == attempt


def fields_of_config(config: str) -> dict[str, str]:
    return dict(re.findall(r"(\w+): ([\d.]+),", config))


async def test_private_columns_are_not_in_the_overview(brain: RunningBrain) -> None:
    text = json.dumps(await first_message(brain, "adw-monitor"))
    assert "adw-1" in text
    for private in ("make it so", "/trees/adw-1", "plan.md"):
        assert private not in text


def test_the_mocked_hook_of_the_document_returns_what_the_real_one_does() -> None:
    (mock,) = snippets("typescript", "jest.mock(")
    mocked = set(re.findall(r"^    (\w+): ", mock, re.MULTILINE))
    assert mocked == set(re.findall(r"^  (\w+): ", returned("useWorkflowsWebSocket"), re.MULTILINE))
