"""The application: routes around one student, behind the gate."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from threading import Event
from typing import Any

from fastapi import FastAPI, Response
from pydantic import BaseModel
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp

from g2r_lightning import __version__
from g2r_lightning.inference.server.answering import Answerer
from g2r_lightning.inference.server.direct import Direct
from g2r_lightning.inference.server.gate import OPEN, Gate
from g2r_lightning.inference.server.metrics import CONTENT_TYPE
from g2r_lightning.inference.server.openai_api import openai_routes
from g2r_lightning.inference.server.page import read_page
from g2r_lightning.inference.server.refusals import add_handlers, documented
from g2r_lightning.inference.server.respond_api import respond_routes
from g2r_lightning.inference.server.service import Service
from g2r_lightning.inference.server.settings import ServeSettings

PATHS = ("/", "/health", "/metrics", "/openapi.json", "/respond", "/v1/chat/completions", "/v1/models", "/v1/models/")


class Health(BaseModel):
    """Whether the server can answer, and whether it could again after a restart."""

    status: str
    model: str
    responses: int
    reason: str | None = None


def create_app(
    answerer: Answerer, settings: ServeSettings, token: str | None = None, stopping: Event | None = None
) -> ASGIApp:
    """Return the server as an ASGI application.

    Args:
        answerer: student and index, loaded.
        settings: limits; where to listen is not its concern, but by which names it may be called is.
        token: bearer token that all but ``/`` and ``/health`` ask for.
        stopping: is set when the server is about to stop, so that what comes is told.
    """
    service = Service(answerer, settings)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        """Be warm before the first request, and let nobody wait after the last."""
        await service.batcher.run(answerer.warm_up)
        following = asyncio.create_task(service.follow())
        yield
        following.cancel()
        with suppress(asyncio.CancelledError):
            await following
        service.batcher.close()

    api = FastAPI(
        title="g2r_lightning",
        version=__version__,
        description="Replies retrieved by a student.",
        docs_url=None,  # these pages load scripts from elsewhere
        redoc_url=None,
        redirect_slashes=False,
        lifespan=lifespan,
    )
    add_handlers(api)
    add_own_routes(api, service)
    routers = [openai_routes(service), respond_routes(service)]
    for router in routers:
        api.include_router(router)
    _describe(api, token)
    app: ASGIApp = Gate(Direct(api, routers), settings, service.metrics, token, PATHS, stopping)
    if settings.cors_origins:
        app = CORSMiddleware(
            app,
            allow_origins=settings.cors_origins,
            allow_methods=["GET", "POST"],
            allow_headers=["authorization", "content-type"],
            expose_headers=["retry-after", "x-g2r-abstained"],
        )
    return app


def add_own_routes(api: FastAPI, service: Service) -> None:
    """Add the page, health and metrics."""
    page = read_page()

    @api.get("/", response_class=Response, include_in_schema=False)
    async def chat_page() -> Response:
        """Return the page to chat on."""
        return page.response()

    @api.get("/health", response_model=Health, responses={503: {"model": Health}, **documented()})
    async def health() -> Response:
        """Tell whether the index is loaded and still where it was; 503 where it is not."""
        found, status = service.health()
        return Response(Health(**found).model_dump_json(), status, media_type="application/json")

    @api.get(
        "/metrics",
        response_class=Response,
        responses={200: {"content": {"text/plain": {}}, "description": "For Prometheus"}, **documented()},
    )
    async def metrics() -> Response:
        """Return counters and histograms as Prometheus reads them."""
        return Response(service.metrics.text(), headers={"content-type": CONTENT_TYPE})


def _describe(api: FastAPI, token: str | None) -> None:
    """Let the description tell of the token, and not of 422, which the framework writes in and never comes."""
    described = api.openapi

    def own() -> dict[str, Any]:
        """Return the description."""
        schema = described()
        for path, operations in schema["paths"].items():
            for operation in operations.values():
                operation["responses"].pop("422", None)
                operation["security"] = [] if token is None or path in OPEN else [{"bearer": []}]
        schemas = schema["components"]["schemas"]
        for name in ("HTTPValidationError", "ValidationError"):
            schemas.pop(name, None)
        if token is not None:
            schema["components"]["securitySchemes"] = {"bearer": {"type": "http", "scheme": "bearer"}}
        return schema

    api.openapi = own  # type: ignore[method-assign]  # FastAPI's documented way
