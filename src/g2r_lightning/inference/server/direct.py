"""The routes that carry the load, without the framework's steps around them.

FastAPI declares and describes every route, and answers the ``GET`` ones. For a ``POST`` its machinery (three stacks of
middleware, dependencies, JSON to objects to models) takes as long as all the rest of a request, so here the declared
model reads the body's bytes in one pass, and the declared function answers.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import Any, get_type_hints

from fastapi import APIRouter
from fastapi.routing import APIRoute
from pydantic import BaseModel, ValidationError
from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from g2r_lightning.inference.server.refusals import JSON, RefusedError, malformed_body

Endpoint = Callable[[Any], Awaitable[Response]]


class Direct:
    """Answer the ``POST`` routes of some routers; leave everything else to the application that declares them.

    Args:
        app: that application.
        routers: theirs are functions of one argument, ``request``, the model of the body.
    """

    def __init__(self, app: ASGIApp, routers: Iterable[APIRouter]) -> None:
        self._app = app
        self._endpoints: dict[str, tuple[type[BaseModel], Endpoint]] = {
            route.path: (get_type_hints(route.endpoint)["request"], route.endpoint)
            for router in routers
            for route in router.routes
            if isinstance(route, APIRoute) and "POST" in (route.methods or ())
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, whose body the gate has read in whole.

        Raises:
            RefusedError: the body is no JSON, or does not fit, or is refused by the endpoint.
        """
        found = self._endpoints.get(scope["path"]) if scope["type"] == "http" and scope["method"] == "POST" else None
        if found is None:
            await self._app(scope, receive, send)
            return
        model, endpoint = found
        # what a page of any origin may send without asking the browser first is another type
        kind = Headers(scope=scope).get("content-type", "").partition(";")[0].strip().lower()
        if kind != JSON:
            raise RefusedError(415, f"send JSON, with the header Content-Type: {JSON}", "unsupported_media_type")
        try:
            request = model.model_validate_json((await receive())["body"])
        except ValidationError as error:
            raise malformed_body(error.errors(include_url=False, include_input=False), model) from None
        response = await endpoint(request)
        await response(scope, receive, send)
