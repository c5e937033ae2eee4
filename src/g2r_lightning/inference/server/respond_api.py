"""``POST /respond``: a context, and its best replies with scores and sources."""

from __future__ import annotations

import json
from typing import Annotated, Any

from fastapi import APIRouter, Response
from pydantic import BaseModel, ConfigDict, Field

from g2r_lightning.inference.server.answering import Ask
from g2r_lightning.inference.server.limits import check_k, check_texts
from g2r_lightning.inference.server.refusals import JSON, RefusedError, documented
from g2r_lightning.inference.server.service import Service


class RespondRequest(BaseModel):
    """What to answer."""

    model_config = ConfigDict(strict=True)

    context: Annotated[list[str], Field(min_length=1, description="Utterances so far, oldest first.")]
    k: Annotated[int | None, Field(ge=1, description="How many replies; the server has a default.")] = None
    persona: Annotated[
        list[str], Field(description="Lines about the one who answers, for students that read them.")
    ] = []
    rules: Annotated[dict[str, Any] | None, Field(description="What replies must comply with.")] = None


class ScoredReply(BaseModel):
    """One reply. Scores are comparable within one index only; higher is better."""

    text: str
    score: float
    source: str


class RespondAnswer(BaseModel):
    """Replies, best first; none where the student abstains."""

    model: str
    replies: list[ScoredReply]
    abstained: bool


def respond_routes(service: Service) -> APIRouter:
    """Return the route."""
    router = APIRouter()
    settings = service.settings

    @router.post("/respond", response_model=RespondAnswer, responses=documented(400, 408, 413, 415, 503, 504))
    async def respond(request: RespondRequest) -> Response:
        """Return the best replies to a context."""
        check_texts(request.context, "context", settings)
        check_texts(request.persona, "persona", settings)
        k = settings.k if request.k is None else request.k
        check_k(k, "k", settings)
        ask = Ask(tuple(request.context), k, tuple(request.persona), read_rules(request.rules))
        replies = (await service.ask(ask)).replies
        told = {
            "model": service.answerer.name,
            "replies": [{"text": one.text, "score": one.score, "source": one.source} for one in replies],
            "abstained": not replies,
        }
        return Response(to_json(told), media_type=JSON)

    return router


def read_rules(rules: dict[str, Any] | None) -> Any:
    """Return the rules of a request as :meth:`Responder.respond_all` takes them, ``None`` for none.

    The one place that knows them: what this returns travels in :class:`Ask`, joins equal ones to one pass, and reaches
    the Responder as ``rules=``.

    Raises:
        RefusedError: the Responder knows no such rule; today it knows none.
    """
    if not rules:
        return None
    raise RefusedError(
        400, f"rules: this server knows no rule {json.dumps(next(iter(rules)))}", "unknown_rule", "rules"
    )


def to_json(value: Any) -> bytes:
    """Return JSON in UTF-8; NaN, which is none, is an error."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()
