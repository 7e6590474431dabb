"""The documents are unchanged, and their code is found in them."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path
from uuid import UUID

import pytest

from tests.seeds.comparing import comparable, kinds
from tests.seeds.snippets import FOLDER, Document

FIRST_OF_SHA256 = {
    "1-cecelia-brain.md": "41775b2c240d166f6aa8736926b0a34e",
    "2-brain-websocket-system.md": "e12f795a0806c37ab8c272059b931d0e",
    "3-tac-webbuilder.md": "bbb33041cecab0b8dc47c33ebb30af74",
    "4-mission-control.md": "12929f90b30eaa6f552614d868430fa1",
    "5-code-cloud-agents.md": "aedcecd898135d1c39118783c81d469e",
}

TEXT = """
# Connecting

```
ws://localhost:8000/ws
```

1. Then:
   ```bash
   # Look
   curl http://localhost:8000/
     twice
   ```

## Said

```json
{"type": "connected"}
```
"""


@pytest.fixture
def document(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Document:
    monkeypatch.setattr("tests.seeds.snippets.FOLDER", tmp_path)
    (tmp_path / "a.md").write_text(TEXT)
    return Document("a.md", "localhost:8000")


def test_the_documents_are_unchanged() -> None:
    found = {path.name: sha256(path.read_bytes()).hexdigest()[:32] for path in FOLDER.iterdir()}
    assert found == FIRST_OF_SHA256


def test_blocks_are_counted_under_their_heading(document: Document) -> None:
    assert document.code("Connecting") == "ws://localhost:8000/ws\n"
    assert document.code("Connecting", 2) == "# Look\ncurl http://localhost:8000/\n  twice\n"
    assert document.message("Said") == {"type": "connected"}


def test_the_address_is_replaced_and_what_is_filled_in(document: Document) -> None:
    snippet = document.snippet("Connecting", 2, at="localhost:1", fill_in={"twice": "once"})
    assert snippet == "# Look\ncurl http://localhost:1/\n  once\n"


@pytest.mark.parametrize(
    ("heading", "number", "why"),
    [
        ("Leaving", 1, "a.md has no heading 'Leaving'"),
        ("Look", 1, "a.md has no heading 'Look'"),
        ("Said", 2, "a.md has 1 blocks under 'Said': no number 2"),
        ("Said", 0, "a.md has 1 blocks under 'Said': no number 0"),
        ("Said", 1, "a.md does not print 'localhost:8000' under 'Said'"),
    ],
)
def test_what_is_not_printed_is_named(
    document: Document, heading: str, number: int, why: str
) -> None:
    with pytest.raises(LookupError) as raised:
        document.snippet(heading, number, at="localhost:1")
    assert str(raised.value) == why


@pytest.mark.parametrize(
    ("printed", "received"),
    [
        ({"a": 1, "b": 2}, {"b": 2, "a": 1}),
        ({"a": None}, {"a": None, "b": None}),
        ({"at": "2026-02-06T01:30:00.000Z"}, {"at": "2026-02-06T01:30:00.000+00:00"}),
        ({"at": "2026-02-06T01:30:00.000Z"}, {"at": "2026-02-06T01:30:00Z"}),
        ({"at": 1703001234.56}, {"at": 1703001234}),
        ({"at": 1703001234.56}, {"at": 1703001234560.0}),
        ({"at": 1707163200000}, {"at": 1707163200}),
        ({"at": 1707163200000}, {"at": 1707163200000.5}),
        ({"id": "uuid-here"}, {"id": "f81d4fae"}),
        ({"id": "1"}, {"id": 1}),
        ({"is": True}, {"is": 1}),
        ({"of": [{"id": "1"}]}, {"of": [{"no": "1"}]}),
    ],
)
def test_another_key_order_type_or_format_is_another_message(
    printed: object, received: object
) -> None:
    assert kinds(printed) != kinds(received)
    assert comparable(printed) != comparable(received)


def test_moments_and_ids_of_connections_may_differ() -> None:
    printed = {"id": "uuid-here", "at": 1703001234.56, "ms": 1707163200000, "n": 5}
    received = {"id": f"{UUID(int=1)}", "at": 1763001234.5, "ms": 1763001234567, "n": 5}
    assert comparable(printed) == comparable(received)
    assert comparable({"n": 5}) != comparable({"n": 6})
    assert kinds({"n": 5}) == kinds({"n": 6})
