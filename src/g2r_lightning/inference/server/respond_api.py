"""``POST /respond``: a context, and its best replies with scores and sources."""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Response
from pydantic import BaseModel, ConfigDict, Field

from g2r_lightning.inference.responder import Reply
from g2r_lightning.inference.rules import ReplyRules
from g2r_lightning.inference.server.answering import Answerer, Ask
from g2r_lightning.inference.server.limits import check_k, check_texts
from g2r_lightning.inference.server.refusals import JSON, RefusedError, documented
from g2r_lightning.inference.server.service import Service


class Wishes(BaseModel):
    """What the replies to one request must comply with, beside the server's own rules; see docs/replies.md."""

    model_config = ConfigDict(strict=True, extra="forbid")

    where: Annotated[str | None, Field(description="A condition over the index's columns: `source = original`.")] = None
    no_repeat: Annotated[
        int | None, Field(ge=0, le=1_000_000, description="Nothing that was said in so many of the last turns.")
    ] = None
    diversity: Annotated[float | None, Field(ge=0, le=1, description="0: the best; 1: the most varied.")] = None
    threshold: Annotated[
        Annotated[float, Field(allow_inf_nan=False)] | Literal["calibrated"] | None,
        Field(description="Nothing that scores less."),
    ] = None


class RespondRequest(BaseModel):
    """What to answer."""

    model_config = ConfigDict(strict=True, extra="forbid")

    context: Annotated[list[str], Field(min_length=1, description="Utterances so far, oldest first.")]
    k: Annotated[int | None, Field(ge=1, description="How many replies; the server has a default.")] = None
    persona: Annotated[
        list[str], Field(description="Lines about the one who answers, for students that read them.")
    ] = []
    rules: Annotated[Wishes | None, Field(description="What replies must comply with.")] = None


class ScoredReply(BaseModel):
    """One reply. Scores are comparable within one index only; higher is better."""

    text: str
    score: Annotated[float, Field(description="The student's.")]
    source: str
    rerank_score: Annotated[float | None, Field(description="The second stage's, which orders the replies.")] = None


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
        ask = Ask(tuple(request.context), k, tuple(request.persona), read_rules(request.rules, service.answerer))
        replies = (await service.ask(ask)).replies
        told = {
            "model": service.answerer.name,
            "replies": [scored(one) for one in replies],
            "abstained": not replies,
        }
        return Response(to_json(told), media_type=JSON)

    return router


def scored(reply: Reply) -> dict[str, Any]:
    """Return a reply as :class:`ScoredReply` has it."""
    second = {} if reply.rerank_score is None else {"rerank_score": reply.rerank_score}
    return {"text": reply.text, "score": reply.score, **second, "source": reply.source}


def read_rules(wishes: Wishes | None, answerer: Answerer) -> ReplyRules | None:
    """Return the rules of a request, ``None`` where it has none.

    Raises:
        RefusedError: 400, a condition cannot be read.
    """
    given = {} if wishes is None else wishes.model_dump(exclude_none=True)
    if not given:
        return None
    try:
        return answerer.responder.rules.asked(given)
    except ValueError as error:
        raise RefusedError(400, str(error), "invalid_rule", "rules") from error


def to_json(value: Any) -> bytes:
    """Return JSON in UTF-8; NaN, which is none, is an error."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()
