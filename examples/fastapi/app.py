"""An application with sessions of its own, in which Brain is mounted."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from secrets import token_urlsafe

from fastapi import FastAPI
from fastapi.responses import FileResponse, Response

from brain import Authenticated, Connection, create_app

users: dict[str, str] = {}
"""By session. Yours are in a database, and have passwords."""


async def authenticate(connection: Connection | None, token: str | None) -> Authenticated | None:
    session = connection.cookies.get("session", "") if connection else ""
    user = users.get(session)
    return Authenticated(user=user, channels=["orders"]) if user else None


live = create_app(authenticator=authenticate)  # of BRAIN_DATABASE_URL


@asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncIterator[None]:
    async with live:
        yield


app = FastAPI(lifespan=lifespan)
app.mount("/live", live)


@app.get("/")
async def page() -> FileResponse:
    return FileResponse(Path(__file__).parent / "index.html")


@app.post("/login/{user}")
async def login(user: str) -> Response:
    session = token_urlsafe()
    users[session] = user
    response = Response(status_code=204)
    response.set_cookie("session", session, httponly=True, samesite="strict")
    return response
