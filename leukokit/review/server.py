"""The local web page on which a batch is reviewed.

It listens on this machine only. The address that is printed holds a token; without it nothing is answered.
The token becomes a cookie that scripts cannot read. A request that changes something must come from the page
itself: its ``Host`` and ``Origin`` are checked, and a header that no form of another site can send.
"""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable
from importlib.resources import files
from pathlib import Path
from typing import Any, Final

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, RedirectResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from leukokit._text import one_line
from leukokit.errors import DataError, ImageError, LeukokitError
from leukokit.review.pictures import Pictures
from leukokit.review.session import ReviewSession

COOKIE: Final = "leukokit_review"
HEADER: Final = "x-leukokit"
"""Sent by the page's script with every change; a form of another site cannot send it."""
MAX_BODY: Final = 4 << 20
_TYPES: Final = {".html": "text/html", ".css": "text/css", ".js": "text/javascript"}
_SECURITY: Final = {
    "Content-Security-Policy": "default-src 'none'; img-src 'self' data:; script-src 'self'; "
    "style-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}

Change = Callable[[dict[str, Any]], dict[str, Any]]


class _Access:
    """Answers only requests for this address that know the token."""

    def __init__(self, app: ASGIApp, token: str, hosts: frozenset[str]) -> None:
        self._app, self._token, self._hosts = app, token, hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request = Request(scope)
        response = self._refuse(request)
        if response is None and (given := request.query_params.get("token")) is not None:
            response = self._enter(given)
        if response is None and not self._is_token(request.cookies.get(COOKIE, "")):
            response = PlainTextResponse("Open the address that 'leukokit review' printed.", 403)
        if response is not None:
            response.headers.update(_SECURITY)
            await response(scope, receive, send)
            return
        await self._app(scope, receive, send)

    def _refuse(self, request: Request) -> Response | None:
        if request.headers.get("host", "") not in self._hosts:
            return PlainTextResponse("This address is not served here.", 421)
        if request.method == "GET":
            return None
        origin = request.headers.get("origin", "")
        if origin.removeprefix("http://") not in self._hosts or request.headers.get(HEADER) != "1":
            return PlainTextResponse("Only the page itself may change something.", 403)
        return None

    def _enter(self, given: str) -> Response:
        if not self._is_token(given):
            return PlainTextResponse("Wrong token: open the address that 'leukokit review' printed.", 403)
        response = RedirectResponse("/", 303)
        response.set_cookie(COOKIE, self._token, httponly=True, samesite="strict")
        return response

    def _is_token(self, given: str) -> bool:
        return secrets.compare_digest(given.encode(), self._token.encode())


class ReviewServer:
    """The page's addresses.

    Args:
        session: the batch under review.
        token: what a browser must know.
        port: where it listens, which ``Host`` must name.
    """

    def __init__(self, session: ReviewSession, token: str, port: int) -> None:
        self.session, self.pictures = session, Pictures(session.batch)
        hosts = frozenset({f"127.0.0.1:{port}", f"localhost:{port}"})
        routes = [
            Route("/", self._file),
            Route("/{name}.{suffix}", self._file),
            Route("/api/batch", self._batch),
            Route("/api/decide", self._changing(self._decide), methods=["POST"]),
            Route("/api/undo", self._changing(self._undo), methods=["POST"]),
            Route("/api/finish", self._changing(self._finish), methods=["POST"]),
            Route("/api/state", self._state),
            Route("/api/crop/{number:int}", self._crop),
            Route("/api/field/{number:int}", self._field),
        ]
        self.app = Starlette(routes=routes, middleware=[Middleware(_Access, token=token, hosts=hosts)])

    async def _file(self, request: Request) -> Response:
        name = "{name}.{suffix}".format(**(request.path_params or {"name": "index", "suffix": "html"}))
        kind = _TYPES.get(Path(name).suffix)
        found = files(__package__).joinpath("page", name)
        if kind is None or not found.is_file():
            return PlainTextResponse("There is no such page.", 404, _SECURITY)
        return Response(found.read_bytes(), 200, _SECURITY, kind)

    async def _batch(self, _: Request) -> Response:
        return JSONResponse(await run_in_threadpool(self.session.describe), headers=_SECURITY)

    async def _state(self, _: Request) -> Response:
        """All verdicts, for a page that is open beside another."""
        state = await run_in_threadpool(lambda: self.session.state(self.session.log.current()))
        return JSONResponse(state, headers=_SECURITY)

    def _decide(self, asked: dict[str, Any]) -> dict[str, Any]:
        cells, label, reviewer = asked.get("cells"), asked.get("label"), asked.get("reviewer")
        if not isinstance(cells, list) or not all(isinstance(number, int) for number in cells):
            raise DataError("'cells' must be a list of numbers")
        if not (label is None or isinstance(label, str)) or not isinstance(reviewer, str):
            raise DataError("'label' and 'reviewer' must be text")
        return self.session.decide(cells, label, reviewer)

    def _undo(self, asked: dict[str, Any]) -> dict[str, Any]:
        reviewer = asked.get("reviewer")
        if not isinstance(reviewer, str):
            raise DataError("'reviewer' must be text")
        return self.session.undo(reviewer)

    def _finish(self, _: dict[str, Any]) -> dict[str, Any]:
        return {"files": [path.name for path in self.session.finish()]}

    def _changing(self, change: Change) -> Callable[[Request], Awaitable[Response]]:
        async def respond(request: Request) -> Response:
            try:
                body = await request.body()
                asked = await request.json() if len(body) <= MAX_BODY else None
                if not isinstance(asked, dict):
                    raise DataError("a JSON object of at most 4 MB is expected")
                # Stored on the disk before the page hears of it.
                return JSONResponse(await run_in_threadpool(change, asked), headers=_SECURITY)
            except (LeukokitError, ValueError, IndexError) as error:
                return JSONResponse({"error": one_line(error)}, 400, _SECURITY)

        return respond

    async def _crop(self, request: Request) -> Response:
        number, cells = request.path_params["number"], self.session.batch.cells
        if number >= len(cells):
            return PlainTextResponse("There is no such cell.", 404, _SECURITY)
        return await _picture(lambda: self.pictures.crop(cells[number]))

    async def _field(self, request: Request) -> Response:
        number, fields = request.path_params["number"], list(self.session.batch.fields.values())
        if number >= len(fields):
            return PlainTextResponse("There is no such field.", 404, _SECURITY)
        return await _picture(lambda: self.pictures.field(fields[number]))


async def _picture(make: Callable[[], bytes]) -> Response:
    try:
        content = await run_in_threadpool(make)
    except ImageError as error:
        return PlainTextResponse(one_line(error), 404, _SECURITY)
    # The same address always shows the same picture while the page is open.
    return Response(content, 200, {**_SECURITY, "Cache-Control": "private, max-age=3600"}, "image/jpeg")
