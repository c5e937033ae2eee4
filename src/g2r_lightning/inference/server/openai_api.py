"""``/v1``: the student as a model of OpenAI's API, so that any chat client talks to it unchanged."""

from __future__ import annotations

import time
import uuid
from collections.abc import AsyncIterator, Iterator, Sequence
from difflib import get_close_matches
from typing import Any

from fastapi import APIRouter, Response
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from g2r_lightning.inference.responder import Reply
from g2r_lightning.inference.server.answering import Answer, Ask
from g2r_lightning.inference.server.conversation import read_messages
from g2r_lightning.inference.server.limits import check_k, check_texts
from g2r_lightning.inference.server.openai_schema import OTHERS, ChatCompletion, ChatRequest, Model, Models
from g2r_lightning.inference.server.refusals import JSON, LONGEST_KEY, RefusedError, documented
from g2r_lightning.inference.server.respond_api import read_rules, scored, to_json
from g2r_lightning.inference.server.service import Service

Fields = dict[str, Any]
MOST_UNKNOWN = 32
ALIKE = 0.85  # `top_k`, which others read, is not alike `top_p`; `max_token` is alike `max_tokens`


class EventStream(StreamingResponse):
    """Server-sent events of a reply that is known in whole before the first of them is sent.

    So nothing is left to cancel where the client goes away, and no task has to listen for that.
    """

    media_type = "text/event-stream"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002  # ASGI's signature
        """Send all events."""
        await self.stream_response(send)


def openai_routes(service: Service) -> APIRouter:
    """Return the routes under ``/v1``."""
    router = APIRouter(prefix="/v1")
    settings, answerer = service.settings, service.answerer
    begun = int(time.time())

    @router.post(
        "/chat/completions",
        response_model=ChatCompletion,
        responses={
            200: {"content": {"text/event-stream": {}}, "description": "The replies; events with `stream`"},
            **documented(400, 404, 408, 413, 415, 503, 504),
        },
    )
    async def chat_completions(request: ChatRequest) -> Response:
        """Return the best replies to a conversation."""
        check_keys(request)
        _check_model(request.model, answerer.name)
        _check_wishes(request)
        k = request.n or 1
        check_k(k, "n", settings)
        check_texts(request.persona or [], "persona", settings)
        context, persona = read_messages(request.messages, settings)
        with_usage = not request.stream or bool(request.stream_options and request.stream_options.include_usage)
        persona = (*(request.persona or ()), *persona)
        answer = await service.ask(Ask(context, k, persona, read_rules(request.rules, answerer), with_usage))
        common = {
            "id": f"chatcmpl-{uuid.uuid4().hex}",
            "created": int(time.time()),
            "model": answerer.name,
            "system_fingerprint": answerer.fingerprint,
        }
        headers = {} if answer.replies else {"x-g2r-abstained": "true"}
        if request.stream:
            return EventStream(events(common, answer, settings.fallback, with_usage), headers=headers)
        choices = [_choice(place, **said) for place, said in enumerate(_said(answer, settings.fallback))]
        told = {**common, "object": "chat.completion", "choices": choices, "usage": _usage(answer)}
        return Response(to_json(told), headers=headers, media_type=JSON)

    def model() -> Fields:
        """Return what there is to tell of the student; the index may have changed."""
        facts = {"responses": answerer.responses, "persona": answerer.reads_persona, "max_k": settings.max_k}
        return {"id": answerer.name, "object": "model", "created": begun, "owned_by": "g2r_lightning", "g2r": facts}

    @router.get("/models", response_model=Models, responses=documented())
    async def models() -> Response:
        """Return the one model."""
        return Response(to_json({"object": "list", "data": [model()]}), media_type=JSON)

    @router.get("/models/{name:path}", response_model=Model, responses=documented(404))
    async def one_model(name: str) -> Response:
        """Return the model of a name."""
        _check_model(name, answerer.name)
        return Response(to_json(model()), media_type=JSON)

    return router


async def events(common: Fields, answer: Answer, fallback: str, with_usage: bool) -> AsyncIterator[bytes]:
    """Yield a completion as OpenAI streams it: for each choice its role, its text, its end; usage; ``[DONE]``.

    Args:
        common: what every chunk repeats.
        answer: the replies.
        fallback: what is said where there are none.
        with_usage: whether a chunk with the tokens comes before the end; the others then have ``usage: null``.
    """
    common = {**common, "object": "chat.completion.chunk"}
    usage = {"usage": None} if with_usage else {}
    for place, said in enumerate(_said(answer, fallback)):
        for delta, finish in _deltas(said["text"]):
            choice: Fields = {"index": place, "delta": delta, "logprobs": None, "finish_reason": finish}
            if finish:
                choice["g2r"] = said["retrieved"]
            yield _event({**common, "choices": [choice], **usage})
    if with_usage:
        yield _event({**common, "choices": [], "usage": _usage(answer)})
    yield b"data: [DONE]\n\n"


def _deltas(text: str) -> Iterator[tuple[Fields, str | None]]:
    yield {"role": "assistant", "content": "", "refusal": None}, None
    if text:
        yield {"content": text}, None
    yield {}, "stop"


def _event(chunk: Fields) -> bytes:
    return b"data: " + to_json(chunk) + b"\n\n"


def _said(answer: Answer, fallback: str) -> Sequence[Fields]:
    """Return text and origin of each choice. There is always one: clients read ``choices[0]`` without a look."""
    if not answer.replies:
        return [{"text": fallback, "retrieved": {"score": None, "source": None, "abstained": True}}]
    return [{"text": one.text, "retrieved": {**_origin(one), "abstained": False}} for one in answer.replies]


def _origin(reply: Reply) -> Fields:
    return {name: value for name, value in scored(reply).items() if name != "text"}


def _choice(place: int, text: str, retrieved: Fields) -> Fields:
    message = {"role": "assistant", "content": text, "refusal": None}
    return {"index": place, "message": message, "logprobs": None, "finish_reason": "stop", "g2r": retrieved}


def _usage(answer: Answer) -> Fields:
    read, said = answer.prompt_tokens, answer.completion_tokens
    return {"prompt_tokens": read, "completion_tokens": said, "total_tokens": read + said}


def _check_model(asked: str | None, name: str) -> None:
    if asked is not None and asked != name:
        raise RefusedError(404, f"there is no such model here; there is {name!r}", "model_not_found", "model")


def check_keys(request: ChatRequest) -> None:
    """Refuse a field that looks like one that is misspelt; others, which servers of other makers read, change nothing.

    Raises:
        RefusedError: 400, names it and the one that was probably meant; or there are too many.
    """
    unknown = [key for key in request.model_extra or () if key not in OTHERS]
    if len(unknown) > MOST_UNKNOWN:
        raise RefusedError(400, f"{len(unknown)} unknown fields; leave them out", "unknown_field")
    known = [*ChatRequest.model_fields, *OTHERS]
    for key in unknown:
        nearest = get_close_matches(key[:LONGEST_KEY], known, 1, ALIKE)
        if nearest:
            told = f"{key[:LONGEST_KEY]}: no such field; did you mean '{nearest[0]}'?"
            raise RefusedError(400, told, "unknown_field", key[:LONGEST_KEY])


def _check_wishes(request: ChatRequest) -> None:
    """Refuse what would be ignored, but not without harm: a client that asked for JSON would parse a reply."""
    if request.response_format is not None and request.response_format.type != "text":
        raise RefusedError(400, "response_format: replies are plain text", "unsupported_format", "response_format")
    if request.tool_choice not in (None, "none", "auto"):
        raise RefusedError(400, "tool_choice: this model calls no tools", "unsupported_tools", "tool_choice")
