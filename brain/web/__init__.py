"""
HTTP: status, snapshots, publishing, pages; and the WebSocket endpoint `/ws`.

In: requests. Out: responses; a WebSocket is handed to a session.
"""
