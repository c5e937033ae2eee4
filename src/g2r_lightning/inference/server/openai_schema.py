"""Requests and responses of ``/v1``, as OpenAI's API has them, with what a retriever adds.

What a client of a generator sends and a retriever has no use for (temperature, seeds, lengths, penalties) is taken and
changes nothing: a reply is a whole text that somebody wrote, looked through, or approved.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from g2r_lightning.inference.server.respond_api import Wishes

Number = Annotated[float | None, Field(allow_inf_nan=False, description="Taken, and changes nothing.")]
Whole = Annotated[int | None, Field(description="Taken, and changes nothing.")]


class Strict(BaseModel):
    """What clients send: of the right type, unknown fields left alone."""

    model_config = ConfigDict(strict=True)


class ContentPart(Strict):
    """A part of a message; of the types, ``text`` alone is read."""

    type: str
    text: str | None = None
    refusal: str | None = None


class Message(Strict):
    """One message."""

    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: str | list[ContentPart] | None = None


class StreamOptions(Strict):
    """What a stream holds beside the reply."""

    include_usage: bool | None = None


class ResponseFormat(Strict):
    """The form of a reply: only ``text`` is to be had."""

    type: str


OTHERS = frozenset({
    "audio", "function_call", "functions", "logit_bias", "logprobs", "metadata", "modalities", "moderation",
    "parallel_tool_calls", "prediction", "prompt_cache_key", "prompt_cache_options", "prompt_cache_retention",
    "reasoning_effort", "safety_identifier", "service_tier", "store", "tools", "top_logprobs", "verbosity",
    "web_search_options",
})  # fmt: skip
"""Further fields of OpenAI's API, which change nothing."""


class ChatRequest(Strict):
    """A conversation to go on with; fields that are not here are taken, unless they look like one that is misspelt."""

    model_config = ConfigDict(strict=True, extra="allow")

    messages: Annotated[list[Message], Field(min_length=1)]
    model: Annotated[str | None, Field(description="The name of the run; this server has one.")] = None
    n: Annotated[int | None, Field(ge=1, description="How many replies, best first.")] = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    temperature: Number = None
    top_p: Number = None
    presence_penalty: Number = None
    frequency_penalty: Number = None
    seed: Whole = None
    max_tokens: Whole = None
    max_completion_tokens: Whole = None
    stop: Annotated[str | list[str] | None, Field(description="Taken, and changes nothing.")] = None
    user: Annotated[str | None, Field(description="Taken, and changes nothing.")] = None
    response_format: ResponseFormat | None = None
    tool_choice: Annotated[Any, Field(description="No tool is ever called: one that must be is refused.")] = None
    persona: Annotated[list[str] | None, Field(description="Persona lines, beside those of the system message.")] = None
    rules: Annotated[Wishes | None, Field(description="As in /respond.")] = None


class Retrieved(BaseModel):
    """Where a reply is from. Where the student abstained there is none, and the content is the server's fallback."""

    score: float | None
    source: str | None
    abstained: bool
    rerank_score: Annotated[float | None, Field(description="The second stage's, which orders the replies.")] = None


class ReplyMessage(BaseModel):
    """A reply as a message."""

    role: Literal["assistant"]
    content: str
    refusal: None


class Choice(BaseModel):
    """One of the replies."""

    index: int
    message: ReplyMessage
    logprobs: None
    finish_reason: Literal["stop"]
    g2r: Retrieved


class Usage(BaseModel):
    """Tokens by the student's tokenizer: of the context as it is read (cut to its length), and of the replies."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class ChatCompletion(BaseModel):
    """The replies, best first."""

    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    system_fingerprint: str
    choices: list[Choice]
    usage: Usage


class ModelFacts(BaseModel):
    """What a client may want to know of the student."""

    responses: int
    persona: bool
    max_k: int


class Model(BaseModel):
    """The student."""

    id: str
    object: Literal["model"]
    created: int
    owned_by: str
    g2r: ModelFacts


class Models(BaseModel):
    """The one student."""

    object: Literal["list"]
    data: list[Model]
