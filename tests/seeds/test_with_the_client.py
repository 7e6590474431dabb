"""The three lines by which each system's pages go over to brain-realtime, in a real browser."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import NamedTuple

import asyncpg
import pytest

from brain.publishing.messages import publish
from tests.seeds.conftest import Served
from tests.seeds.front_end import REACT, FrontEnd
from tests.seeds.packages import Packages

ROOT = Path(__file__).parents[2]
# The core that Brain serves, and the adapters of the package.
CORE = ROOT / "brain" / "web" / "static" / "client" / "brain.js"
ADAPTERS = {"react": "useRows, usePresence", "vue": "useRows"}
"""What is imported of each adapter."""
SECTION = r"#+ {heading}\n.*?```tsx\n(.*?)```"
PRINTED_URL = "http://localhost:5221"

SHOWN = """
const Shown = () => <pre id="shown">{JSON.stringify(EXPRESSION)}</pre>;
root.render(<Shown />);
"""
VUE = """
import { createApp, h } from 'vue';
const Shown = {
    setup: () => {
        const missions = useMissions();
        const shown = () => JSON.stringify(missions.value.rows.map(row => row.status));
        return () => h('pre', { id: 'shown' }, shown());
    },
};
createApp(Shown).mount('#root');
"""


class Lines(NamedTuple):
    """The lines of a document, what the page shows of them, and a change that it shows."""

    document: str
    heading: str
    expression: str
    before: str
    """Made before the page is opened."""
    change: str
    shown: tuple[str, str]


SYSTEMS = {
    "cecelia": Lines(
        "protocol.md",
        "With the client",
        "[useTasks(), useRunningTasks()].map(({ rows }) => rows.map(row => row.status))",
        "INSERT INTO tasks (id, status) VALUES ('task-123', 'queued')",
        "UPDATE tasks SET status = 'running' WHERE id = 'task-123'",
        ('[["queued"],[]]', '[["running"],["running"]]'),
    ),
    "channels": Lines(
        "channels.md",
        "With the client",
        "useMissions().rows.map(row => row.status)",
        "INSERT INTO missions (id, name) VALUES ('mission_123', 'Launch')",
        "UPDATE missions SET status = 'started' WHERE id = 'mission_123'",
        ('["created"]', '["started"]'),
    ),
    "workflows": Lines(
        "feeds.md",
        "With the client",
        "[useWorkflows().rows.map(row => row.name), useQueue().rows.length]",
        "INSERT INTO workflows (id, name, status) VALUES ('w', 'deploy', 'running')",
        "UPDATE workflows SET status = 'completed' WHERE id = 'w'",
        ('[["deploy"],0]', "[[],0]"),
    ),
    "mission_control": Lines(
        "agents.md",
        "With the client, for mission control",
        "[useAgents(), useSessions()].map(({ rows }) => rows.map(row => row.id))",
        "INSERT INTO agents (id, name) VALUES ('agent-1', 'ASSISTANT')",
        "INSERT INTO sessions (id, agent_id, last_message) VALUES ('session-1', 'agent-1', 'hi')",
        ('[["agent-1"],[]]', '[["agent-1"],["session-1"]]'),
    ),
    "cloud_agents": Lines(
        "agents.md",
        "With the client",
        "[useAgents().rows.map(row => row.status), useWhoIsThere().users]",
        "INSERT INTO agents (id, name) VALUES ('agent-1', 'ASSISTANT')",
        "UPDATE agents SET status = 'working' WHERE id = 'agent-1'",
        ('[["idle"],{}]', '[["working"],{}]'),
    ),
}


def lines_of(document: str, heading: str, served: Served) -> str:
    """Return the lines under a heading, for a running Brain."""
    text = (ROOT / "docs" / document).read_text()
    found = re.search(SECTION.format(heading=re.escape(heading)), text, re.DOTALL)
    assert found is not None, f"{document} has no lines under {heading!r}"
    lines = found[1].splitlines()
    assert len(lines) == 3
    assert PRINTED_URL in lines[0]
    return found[1].replace(PRINTED_URL, f"http://{served.address}")


def imports(adapter: str, folder: Path) -> str:
    """Return the imports of a page; a copy in `folder` has the page's own React or Vue."""
    source = ROOT / "clients" / "typescript" / "src" / f"{adapter}.ts"
    shutil.copy(source, folder)
    return (
        f"import {{ createBrain }} from '{CORE}';\n"
        f"import {{ {ADAPTERS[adapter]} }} from '{folder / source.name}';\n"
        "const token = 'abc123';\n"
    )


async def shows(front_end: FrontEnd, text: str) -> None:
    await front_end.holds(f"document.getElementById('shown')?.textContent === {text!r}")


@pytest.mark.parametrize("system", SYSTEMS)
async def test_three_lines_show_the_rows_of_a_system_and_what_changes(
    system: str,
    front_end: FrontEnd,
    packages: Packages,
    served: Served,
    sql: asyncpg.Connection,
    tmp_path: Path,
) -> None:
    given = SYSTEMS[system]
    await sql.execute("DELETE FROM workflows")
    await sql.execute(given.before)
    await front_end.mount(
        packages,
        imports("react", tmp_path),
        REACT,
        lines_of(given.document, given.heading, served),
        SHOWN.replace("EXPRESSION", given.expression),
    )
    await shows(front_end, given.shown[0])
    await sql.execute(given.change)
    await shows(front_end, given.shown[1])


async def test_the_lines_of_channels_hold_in_vue_and_log_what_is_published(
    front_end: FrontEnd, packages: Packages, served: Served, sql: asyncpg.Connection, tmp_path: Path
) -> None:
    given = SYSTEMS["channels"]
    await sql.execute(given.before)
    lines = lines_of(given.document, given.heading, served)
    await front_end.mount(packages, imports("vue", tmp_path), lines, VUE)
    await shows(front_end, given.shown[0])
    await publish("system", "system_alert", {"level": "high"}, connection=sql)
    assert await front_end.next_logged() == ["system_alert", {"level": "high"}]


async def test_the_presence_of_cloud_agents_is_shared_with_the_pages_of_its_document(
    front_end: FrontEnd, packages: Packages, served: Served, sql: asyncpg.Connection, tmp_path: Path
) -> None:
    given = SYSTEMS["cloud_agents"]
    await front_end.mount(
        packages,
        imports("react", tmp_path),
        REACT,
        lines_of(given.document, given.heading, served),
        SHOWN.replace("EXPRESSION", "useWhoIsThere().users"),
    )
    await shows(front_end, "{}")
    async with served.brain.client("/ws?token=def456") as other:
        await other.send('{"type": "user_presence", "data": "busy"}')
        await shows(front_end, '{"user_def456":"busy"}')
    await shows(front_end, "{}")
