"""What the server answers where it does not answer: one form for every error, OpenAI's.

``{"error": {"message", "type", "param", "code"}}``, whatever the route, so that OpenAI's clients raise their own
exceptions with our words. A message names the field and the remedy, and never repeats what a user wrote.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from http import HTTPStatus
from typing import Any, get_args

from fastapi import FastAPI, Request
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.responses import Response

from g2r_lightning.errors import G2RError

JSON = "application/json"
TOLD_AT_ONCE = 3
TOLD_OF = 20  # of so many places those that are told are chosen
LONGEST_KEY = 60
_KINDS = {401: "authentication_error", 403: "permission_error", 404: "not_found_error", 429: "rate_limit_error"}


class RefusedError(G2RError):
    """An HTTP error.

    Args:
        status: its status.
        message: for whoever wrote the client: what is wrong, and what to do.
        code: for programs: ``model_not_found``, ``rate_limit_exceeded``, ...
        param: the field of the request that is meant.
        headers: more headers of the response.
    """

    def __init__(
        self, status: int, message: str, code: str, param: str | None = None, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(message)
        self.status, self.message, self.code, self.param = status, message, code, param
        self.headers = dict(headers or {})

    def body(self) -> bytes:
        """Return OpenAI's form as JSON; in ASCII, since a client's own keys may hold half of a character."""
        kind = _KINDS.get(self.status, "server_error" if self.status >= 500 else "invalid_request_error")
        error = {"message": self.message, "type": kind, "param": self.param, "code": self.code}
        return json.dumps({"error": error}).encode()

    def response(self) -> Response:
        """Return it as a response."""
        return Response(self.body(), self.status, self.headers, JSON)


FAILED = RefusedError(500, "the server failed; its log says where", "internal_error")


def stopping() -> RefusedError:
    """Return the refusal of a server that stops, a new one for each request."""
    headers = {"connection": "close", "retry-after": "1"}
    return RefusedError(503, "the server is stopping; come again", "stopping", headers=headers)


class ErrorDetails(BaseModel):
    """What went wrong."""

    message: str
    type: str
    param: str | None
    code: str | None


class ErrorBody(BaseModel):
    """The form of every error."""

    error: ErrorDetails


def documented(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Return the errors of a route for its description; those of the gate are every route's."""
    return {
        status: {"model": ErrorBody, "description": HTTPStatus(status).phrase}
        for status in sorted({401, 403, 429, 500, 503, *statuses})
    }


def add_handlers(api: FastAPI) -> None:
    """Give every error that a route raises the one form."""

    @api.exception_handler(RefusedError)
    async def refused(_: Request, error: RefusedError) -> Response:
        """Answer what this package refuses."""
        return error.response()

    @api.exception_handler(Exception)
    async def failed(_: Request, error: Exception) -> Response:  # noqa: ARG001  # the gate logs it
        """Answer what nobody thought of."""
        return FAILED.response()

    @api.exception_handler(HTTPException)
    async def not_routed(request: Request, error: HTTPException) -> Response:
        """Answer an unknown path or a wrong method."""
        said = {
            404: ("there is no such path; see /openapi.json", "unknown_path"),
            405: (f"this path takes no {request.method}", "method_not_allowed"),
        }
        message, code = said.get(error.status_code, (HTTPStatus(error.status_code).phrase, "http_error"))
        return RefusedError(error.status_code, message, code, headers=error.headers).response()


def malformed_body(errors: Sequence[Any], model: type[BaseModel] = ErrorBody) -> RefusedError:
    """Return the refusal of a body that does not fit, told by the first few places.

    Args:
        errors: pydantic's, without their ``input``: it is the user's text.
        model: of the body; of a key that it has not, the nearest one that it has is told.

    >>> malformed_body([{"type": "missing", "loc": ("messages", 0, "role"), "msg": "Field required"}]).message
    'messages[0].role: Field required'
    """
    if errors and errors[0]["type"] == "json_invalid":
        return RefusedError(400, f"the body is not JSON: {errors[0]['ctx']['error']}", "invalid_json")
    places = [_place(error["loc"]) for error in errors[:TOLD_OF]]
    told = dict.fromkeys(
        f"{place}: {_complaint(error, model)}" if place else str(error["msg"])
        for place, error in zip(places, errors, strict=False)
    )
    message = "; ".join(list(told)[:TOLD_AT_ONCE]) + ("; ..." if len(told) > TOLD_AT_ONCE else "")
    return RefusedError(400, message, "invalid_request", places[0] or None if places else None)


def misspelt(key: str, known: Iterable[str]) -> str:
    """Return what is wrong with a key that nobody reads.

    >>> misspelt("contxt", ["context", "k"]), misspelt("zzz", ["context", "k"])
    ("no such field; did you mean 'context'?", 'no such field; there are context, k')
    """
    names = list(known)
    nearest = get_close_matches(key[:LONGEST_KEY], names, 1)
    return "no such field; " + (f"did you mean '{nearest[0]}'?" if nearest else f"there are {', '.join(names)}")


def _complaint(error: Any, model: type[BaseModel]) -> str:
    if error["type"] != "extra_forbidden":
        return str(error["msg"])
    *path, key = error["loc"]
    for part in path:
        field = model.model_fields.get(str(part))
        inner = [kind for kind in get_args(field.annotation) if isinstance(kind, type)] if field else []
        model = next((kind for kind in inner if issubclass(kind, BaseModel)), model)
    return misspelt(str(key), model.model_fields)


def _place(location: Sequence[int | str]) -> str:
    """Return the path of a field; what pydantic adds for the alternatives of a type is no part of it."""
    parts = [part for part in location if part not in _TYPES and not str(part).startswith(_ALTERNATIVES)]
    named = [part if isinstance(part, int) else part[:LONGEST_KEY] for part in parts]  # a stranger's key has any length
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in named).removeprefix(".")


_TYPES = ("str", "float", "constrained-float")
_ALTERNATIVES = ("list[", "nullable[", "literal[")
