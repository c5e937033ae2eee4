"""The server's answers, in this process: OpenAI's API, /respond, health, metrics, and everything that is refused."""

from __future__ import annotations

import asyncio
import json
import logging
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("fastapi", reason="needs the extra `serve`")

from starlette.testclient import TestClient

from g2r_lightning.inference import ReplyRules, Responder
from g2r_lightning.inference.rerank import Reranker
from g2r_lightning.inference.rules import ASKED
from g2r_lightning.inference.server.answering import Answerer
from g2r_lightning.inference.server.app import create_app
from g2r_lightning.inference.server.openai_schema import OTHERS, ChatCompletion, ChatRequest, Model, Models
from g2r_lightning.inference.server.refusals import ErrorBody
from g2r_lightning.inference.server.respond_api import RespondAnswer, Wishes
from g2r_lightning.inference.server.settings import ServeSettings
from g2r_lightning.student import PolyEncoder
from tiny_server import SOURCES, TEXTS, client, tiny_responder

CHAT = "/v1/chat/completions"
HI = [{"role": "user", "content": "hi"}]
TOKEN = "0123456789abcdef"


@pytest.fixture(scope="module")
def bot(tiny_encoder_folder: Path) -> Responder:
    return tiny_responder(tiny_encoder_folder)


@pytest.fixture(scope="module")
def api(bot) -> Any:
    with client(bot) as made:
        yield made


@pytest.fixture
def other(bot) -> Responder:
    """A student that a test may change."""
    return Responder(bot.index, bot.encoder, bot.text)


def error(response: Any, status: int) -> dict[str, Any]:
    """Return the error of a response after a look at its form."""
    assert response.status_code == status, response.text
    return ErrorBody.model_validate_json(response.content, strict=True).error.model_dump()


def events(response: Any) -> list[Any]:
    """Return the events of a stream; the last is ``[DONE]``."""
    assert response.headers["content-type"].startswith("text/event-stream")
    lines = response.text.split("\n\n")
    assert lines.pop() == ""
    assert all(line.startswith("data: ") for line in lines)
    assert lines.pop() == "data: [DONE]"
    return [json.loads(line.removeprefix("data: ")) for line in lines]


# -- OpenAI's API


def test_a_completion_is_what_the_responder_says(api, bot):
    messages = [*HI, {"role": "assistant", "content": "hello"}, {"role": "user", "content": "do you like pizza ?"}]
    response = api.post(CHAT, json={"model": "tiny", "messages": messages, "n": 3, "temperature": 0.7, "seed": 1})
    found = ChatCompletion.model_validate_json(response.content, strict=True)
    context = ["hi", "hello", "do you like pizza ?"]
    expected = bot.respond(context, k=3)
    assert [choice.message.content for choice in found.choices] == [reply.text for reply in expected]
    assert [choice.g2r.score for choice in found.choices] == pytest.approx([reply.score for reply in expected])
    assert [choice.g2r.source for choice in found.choices] == [reply.source for reply in expected]
    assert [choice.index for choice in found.choices] == [0, 1, 2]
    read = next(iter(bot.text.encode_contexts([context])))
    said = sum(map(len, bot.text.encode_responses(reply.text for reply in expected)))
    assert found.usage.model_dump() == {
        "prompt_tokens": len(read),
        "completion_tokens": said,
        "total_tokens": len(read) + said,
    }


def test_a_stream_says_the_same_in_openais_order(api):
    request = {"model": "tiny", "messages": HI, "n": 2}
    whole = api.post(CHAT, json=request).json()
    streamed = events(api.post(CHAT, json={**request, "stream": True}))
    assert all(chunk["object"] == "chat.completion.chunk" and "usage" not in chunk for chunk in streamed)
    assert len({chunk["id"] for chunk in streamed}) == 1
    for place in (0, 1):
        own = [chunk["choices"][0] for chunk in streamed if chunk["choices"][0]["index"] == place]
        assert own[0]["delta"]["role"] == "assistant"
        assert [choice["finish_reason"] for choice in own] == [None, None, "stop"]
        text = "".join(choice["delta"].get("content", "") for choice in own)
        assert text == whole["choices"][place]["message"]["content"]
        assert own[-1]["g2r"] == whole["choices"][place]["g2r"]
    asked = {**request, "stream": True, "stream_options": {"include_usage": True}}
    *before, last = events(api.post(CHAT, json=asked))
    assert all(chunk["usage"] is None for chunk in before)
    assert (last["choices"], last["usage"]) == ([], whole["usage"])


def test_the_one_model(api):
    models = Models.model_validate_json(api.get("/v1/models").content, strict=True)
    assert [model.id for model in models.data] == ["tiny"]
    assert models.data[0].g2r.model_dump() == {"responses": 6, "persona": False, "max_k": 100}
    assert Model.model_validate_json(api.get("/v1/models/tiny").content) == models.data[0]
    for response in (
        api.get("/v1/models/gpt-4o"),
        api.get("/v1/models/"),
        api.post(CHAT, json={"model": "x", "messages": HI}),
    ):
        found = error(response, 404)
        assert (found["code"], found["param"]) == ("model_not_found", "model")
        assert "there is 'tiny'" in found["message"]
    assert api.post(CHAT, json={"messages": HI}).status_code == 200  # there is only one to be meant


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "the body is not JSON"),
        (b"{", "not JSON"),
        (b'{"a": "\xff"}', "the body is not JSON"),
        (b"[]", "Input should be an object"),
        (b"null", "Input should be an object"),
        (b"[" * 100_000, "the body is not JSON: recursion limit"),
        (b'{"messages": ' + b"9" * 5000 + b"}", "the body is not JSON: number out of range"),
        ({}, "messages: Field required"),
        ({"messages": []}, "messages: List should have at least 1 item"),
        ({"messages": "hi"}, "messages: Input should be a valid array"),
        ({"messages": [None]}, "messages[0]: Input should be an object"),
        ({"messages": [{"content": "hi"}]}, "messages[0].role: Field required"),
        ({"messages": [{"role": "king", "content": "hi"}]}, "messages[0].role: Input should be 'system'"),
        ({"messages": [{"role": "user", "content": 5}]}, "messages[0].content: Input should be a valid string"),
        ({"messages": [{"role": "user", "content": [{"text": "hi"}]}]}, "messages[0].content[0].type: Field required"),
        ({"messages": HI, "n": 0}, "n: Input should be greater than or equal to 1"),
        ({"messages": HI, "n": 101}, "n=101: at most 100 replies"),
        ({"messages": HI, "n": "2"}, "n: Input should be a valid integer"),
        ({"messages": HI, "n": 10**30}, "at most 100 replies"),
        ({"messages": HI, "stream": "yes"}, "stream: Input should be a valid boolean"),
        (
            b'{"messages": [{"role": "user", "content": "hi"}], "temperature": NaN}',
            "temperature: Input should be a fin",
        ),
        (b'{"messages": [{"role": "user", "content": "hi"}], "top_p": -Infinity}', "top_p: Input should be a finite"),
        (b'{"messages": [{"role": "user", "content": "\\ud83d"}]}', "the body is not JSON"),
        (b'{"messages": [{"role": "user", "content": "hi"}], "rules": {"\\ud83d": 1}}', "the body is not JSON"),
        ({"messages": HI, "rules": {"block": ["x"]}}, "rules.block: no such field; there are where, no_repeat, diver"),
        ({"messages": HI, "rules": {"where": "source ="}}, "where='source =', character 9: expected a value"),
        ({"messages": HI, "rules": {"where": "sauce = x"}}, "no column 'sauce'; did you mean 'source'?"),
        ({"messages": HI, "rules": {"threshold": "calibrated"}}, "was not calibrated on validation dialogues"),
        ({"messages": HI, "persna": ["i sail"]}, "persna: no such field; did you mean 'persona'?"),
        ({"messages": HI, "max_token": 3}, "max_token: no such field; did you mean 'max_tokens'?"),
        ({"messages": HI, **{f"x{place}": 1 for place in range(40)}}, "40 unknown fields"),
        ({"messages": HI, "persona": [""]}, "persona[0]: is empty"),
        ({"messages": HI, "response_format": {"type": "json_object"}}, "replies are plain text"),
        ({"messages": HI, "tool_choice": "required"}, "this model calls no tools"),
        ({"messages": [{"role": "user", "content": ""}]}, "messages[0].content: is empty"),
    ],
)
def test_bodies_that_are_refused(api, body, message):
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    found = error(api.post(CHAT, content=content, headers={"content-type": "application/json"}), 400)
    assert message in found["message"]
    assert found["type"] == "invalid_request_error"


def test_what_a_generators_client_sends_besides_changes_nothing(api):
    plain = api.post(CHAT, json={"messages": HI}).json()
    more = {
        "temperature": 2, "top_p": 0.1, "max_tokens": 1, "max_completion_tokens": 1, "stop": ["e"], "seed": 5,
        "presence_penalty": 1, "frequency_penalty": -1, "logit_bias": {"5": 1}, "tools": [{"type": "function"}],
        "tool_choice": "auto", "response_format": {"type": "text"}, "logprobs": False, "user": "u",
    }  # fmt: skip
    assert api.post(CHAT, json={"messages": HI, **more}).json()["choices"] == plain["choices"]


def test_a_system_message_is_a_persona_to_students_that_read_one(tiny_encoder_folder, api):
    said = [{"role": "system", "content": "i love dog\ni have a cat"}, *HI]
    plain = api.post(CHAT, json={"messages": HI, "n": 6}).json()["choices"]
    assert api.post(CHAT, json={"messages": said, "n": 6}).json()["choices"] == plain
    reader = tiny_responder(tiny_encoder_folder, persona="own")
    with client(reader) as own:
        assert own.get("/v1/models").json()["data"][0]["g2r"]["persona"] is True
        found = own.post(CHAT, json={"messages": said, "n": 6}).json()
        expected = reader.respond(["hi"], 6, ["i love dog", "i have a cat"])
        assert [choice["g2r"]["score"] for choice in found["choices"]] == pytest.approx([one.score for one in expected])
        extra = own.post(CHAT, json={"messages": HI, "n": 6, "persona": ["i love dog", "i have a cat"]}).json()
        assert extra["choices"] == found["choices"]
        assert own.post(CHAT, json={"messages": HI, "n": 6}).json()["choices"] != found["choices"]


def test_a_student_without_a_reply_says_the_fallback(other):
    other.respond_all = lambda contexts, k, personas: [[] for _ in contexts]
    for fallback in ("", "i do not know ."):
        with client(other, fallback=fallback) as api:
            response = api.post(CHAT, json={"messages": HI, "n": 3})
            (choice,) = ChatCompletion.model_validate_json(response.content).choices
            assert (choice.message.content, choice.finish_reason) == (fallback, "stop")
            assert choice.g2r.model_dump() == {
                "score": None, "source": None, "abstained": True, "rerank_score": None,
            }  # fmt: skip
            assert response.headers["x-g2r-abstained"] == "true"
            streamed = events(api.post(CHAT, json={"messages": HI, "stream": True}))
            assert "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in streamed) == fallback
            assert streamed[-1]["choices"][0]["finish_reason"] == "stop"
            assert api.post("/respond", json={"context": ["hi"]}).json() == {
                "model": "tiny", "replies": [], "abstained": True,
            }  # fmt: skip
            assert "g2r_abstentions_total 3.0" in api.get("/metrics").text


# -- /respond, /health, /metrics


def test_respond_returns_the_best_with_scores_and_sources(api, bot):
    for k in (1, 6, 100):
        response = api.post("/respond", json={"context": ["hi", "hello ?"], "k": k})
        found = RespondAnswer.model_validate_json(response.content, strict=True)
        assert [(one.text, one.source) for one in found.replies] == [
            (one.text, one.source) for one in bot.respond(["hi", "hello ?"], k)
        ]
    assert len(api.post("/respond", json={"context": ["hi"]}).json()["replies"]) == 5  # the server's default


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"context": []}, "context: List should have at least 1 item"),
        ({"context": "hi"}, "context: Input should be a valid array"),
        ({"context": ["hi", ""]}, "context[1]: is empty"),
        ({"context": ["hi"] * 1001}, "context: 1001, and at most 1000"),
        ({"context": ["x" * 10_001]}, "context[0]: 10001 characters, and at most 10000"),
        ({"context": ["hi"], "k": True}, "k: Input should be a valid integer"),
        ({"context": ["hi"], "k": 101}, "k=101: at most 100"),
        ({"context": ["hi"], "persona": "i love dog"}, "persona: Input should be a valid array"),
        ({"context": ["hi"], "contxt": []}, "contxt: no such field; did you mean 'context'?"),
        ({"contexts": ["hi"]}, "contexts: no such field; did you mean 'context'?"),
        ({"context": ["hi"], "x" * 100_000: 1}, "no such field; there are context, k, persona, rules"),
        ({"context": ["hi"], "rules": {"treshold": 1}}, "rules.treshold: no such field; did you mean 'threshold'?"),
        ({"context": ["hi"], "rules": {"where": 3}}, "rules.where: Input should be a valid string"),
        ({"context": ["hi"], "rules": {"where": "a = b and " * 500}}, "longer than 2000 characters"),
        ({"context": ["hi"], "rules": {"where": "(" * 1500}}, "where="),
        ({"context": ["hi"], "rules": {"diversity": 2}}, "rules.diversity: Input should be less than or equal to 1"),
        ({"context": ["hi"], "rules": {"no_repeat": -1}}, "rules.no_repeat: Input should be greater than or equal"),
        ({"context": ["hi"], "rules": {"threshold": "low"}}, "rules.threshold"),
        ({"context": ["hi"], "rules": {"where": "sauce = x"}}, "no column 'sauce'; did you mean 'source'?"),
    ],
)
def test_contexts_that_are_refused(api, body, message):
    assert message in error(api.post("/respond", json=body), 400)["message"]


def test_rules_of_a_request_hold_beside_the_servers_own(bot):
    strict = Responder(bot.index, bot.encoder, bot.text, ReplyRules(block=("i love pizza",), no_repeat=1))

    def said(api: Any, context: list[str], **rules: Any) -> set[str]:
        response = api.post("/respond", json={"context": context, "k": 6, "rules": rules})
        return {reply["text"] for reply in response.json()["replies"]}

    with client(strict) as api:
        approved = {text for text, source in zip(TEXTS, SOURCES, strict=True) if source == "approved"} - {TEXTS[2]}
        assert said(api, ["hi"]) == set(TEXTS) - {TEXTS[2]}
        assert said(api, ["hi"], where="source = approved") == approved
        assert said(api, ["Yes!"], no_repeat=0) == set(TEXTS) - {TEXTS[2], "yes ."}
        assert said(api, ["hi"], threshold=1e9) == set()
        best = bot.respond(["hi"], 6)
        assert said(api, ["hi"], threshold=best[1].score) <= {best[0].text, best[1].text}
        varied = api.post("/respond", json={"context": ["hi"], "k": 3, "rules": {"diversity": 1}}).json()["replies"]
        assert [one["text"] for one in varied] == [one.text for one in strict.respond(["hi"], 3, diversity=1.0)]
        chat = api.post(CHAT, json={"messages": HI, "n": 6, "rules": {"where": "source = generated"}}).json()
        assert [choice["message"]["content"] for choice in chat["choices"]] == ["no , never ."]
        assert set(Wishes.model_fields) == set(ASKED)


def test_a_second_stage_orders_and_shows_its_score(bot):
    class Backwards(Reranker):
        """Prefers what the student likes least."""

        def load(self) -> None:
            """Have nothing to read."""

        def score(self, contexts: Any, responses: Any) -> list[list[float]]:
            return [[float(place) for place in range(len(own))] for own in responses]

        def describe(self) -> dict[str, Any]:
            return {}

    with client(Responder(bot.index, bot.encoder, bot.text, rerank=Backwards(4))) as api:
        found = api.post("/respond", json={"context": ["hi"], "k": 4})
        RespondAnswer.model_validate_json(found.content, strict=True)
        best = bot.respond(["hi"], 4)
        assert [(one["text"], one["rerank_score"]) for one in found.json()["replies"]] == [
            (one.text, float(place)) for place, one in reversed(list(enumerate(best)))
        ]
        assert [one["score"] for one in found.json()["replies"]] == pytest.approx([one.score for one in best[::-1]])
        chat = ChatCompletion.model_validate_json(api.post(CHAT, json={"messages": HI}).content, strict=True)
        assert (chat.choices[0].message.content, chat.choices[0].g2r.rerank_score) == (best[3].text, 3.0)
        assert "k=5: at most 4" in error(api.post("/respond", json={"context": ["hi"], "k": 5}), 400)["message"]
        assert api.get("/v1/models").json()["data"][0]["g2r"]["max_k"] == 4
        assert len(api.post("/respond", json={"context": ["hi"]}).json()["replies"]) == 4


def test_every_field_of_openais_api_is_known_and_what_others_add_is_taken(api):
    params = pytest.importorskip("openai.types.chat.completion_create_params")
    theirs = set(params.CompletionCreateParamsBase.__annotations__) | {"stream"}
    assert theirs <= {*OTHERS, *ChatRequest.model_fields}
    extra = {"top_k": 40, "min_p": 0.1, "repetition_penalty": 1.1, "transforms": [], "safe_prompt": True}
    assert api.post(CHAT, json={"messages": HI, **extra}).status_code == 200


def test_metrics_count_requests_batches_and_sources(bot):
    with client(bot) as api:
        for _ in range(3):
            api.post("/respond", json={"context": ["secret words"], "k": 6})
        api.post(CHAT, json={"messages": []})
        api.get("/secret/path?secret=query")
        api.get("/v1/models/secret")
        found = api.get("/metrics")
        assert found.headers["content-type"].startswith("text/plain")
        lines = dict(line.rsplit(" ", 1) for line in found.text.splitlines() if not line.startswith("#"))
    assert lines['g2r_requests_total{route="/respond",status="200"}'] == "3.0"
    assert lines[f'g2r_requests_total{{route="{CHAT}",status="400"}}'] == "1.0"
    assert lines['g2r_requests_total{route="(unknown)",status="404"}'] == "1.0"
    assert lines['g2r_requests_total{route="/v1/models/",status="404"}'] == "1.0"
    assert lines['g2r_request_seconds_count{route="/respond"}'] == "3.0"
    assert lines['g2r_batch_size_bucket{le="1.0"}'] == "3.0"
    assert lines['g2r_replies_total{source="approved"}'] == "12.0"
    assert lines['g2r_replies_total{source="original"}'] == "3.0"
    assert lines["g2r_queue_depth"] == "0.0"
    assert lines["g2r_index_responses"] == "6.0"
    assert "secret" not in found.text
    assert "g2r_code_searches" not in found.text


def test_metrics_tell_how_a_poly_encoders_answers_were_proved(tiny_encoder_folder):
    bot = tiny_responder(tiny_encoder_folder, kind=PolyEncoder)
    with client(bot) as api:
        for _ in range(3):
            api.post("/respond", json={"context": ["hi"]})
        lines = dict(line.rsplit(" ", 1) for line in api.get("/metrics").text.splitlines() if line[0] != "#")
    told = bot.codes
    assert told["proved"] >= 3
    for name in ("proved", "first_round", "unproved"):
        assert float(lines[f'g2r_code_searches{{answer="{name}"}}']) == told[name]


# -- the gate


def test_a_token_is_asked_for_everywhere_but_at_the_page_and_for_health(bot):
    with client(bot, TOKEN) as api:
        for path in ("/", "/health"):
            assert api.get(path).status_code == 200
        for path in ("/metrics", "/v1/models", "/openapi.json", "/nowhere"):
            response = api.get(path)
            assert error(response, 401)["code"] == "invalid_api_key"
            assert response.headers["www-authenticate"] == "Bearer"
        for wrong in ("Bearer", f"Bearer {TOKEN[:-1]}", f"Bearer {TOKEN}x", f"Basic {TOKEN}", TOKEN, "Bearer \xe4"):
            headers = {"authorization": wrong.encode("latin-1")}
            assert (
                error(api.post("/respond", json={"context": ["hi"]}, headers=headers), 401)["message"] == "wrong token"
            )
        for right in (f"Bearer {TOKEN}", f"bearer {TOKEN}"):
            response = api.post("/respond", json={"context": ["hi"]}, headers={"authorization": right})
            assert response.status_code == 200
        described = api.get("/openapi.json", headers={"authorization": f"Bearer {TOKEN}"}).json()
        assert described["paths"]["/respond"]["post"]["security"] == [{"bearer": []}]
        assert described["paths"]["/health"]["get"]["security"] == []


def test_too_many_requests_of_one_client_are_told_when_to_come_again(bot):
    with client(bot, rate=0.001, burst=3) as api:
        statuses = [api.get("/health").status_code for _ in range(4)]
        assert statuses == [200, 200, 200, 429]
        response = api.post("/respond", json={"context": ["hi"]})
        assert error(response, 429)["code"] == "rate_limit_exceeded"
        assert 900 < int(response.headers["retry-after"]) <= 1000


def test_names_by_which_the_server_is_called(bot):
    def called(api: TestClient, host: str) -> int:
        return api.get("/v1/models", headers={"host": host}).status_code

    with client(bot) as api:
        assert [called(api, name) for name in ("localhost:8000", "127.0.0.1", "[::1]:8000", "LOCALHOST")] == [200] * 4
        assert error(api.get("/v1/models", headers={"host": "rebound.example.org"}), 403)["code"] == "unknown_host"
    with client(bot, allowed_hosts=["chat.example.org"]) as api:
        assert (called(api, "chat.example.org:443"), called(api, "other.example.org")) == (200, 403)
    with client(bot, host="0.0.0.0") as api:
        assert called(api, "any.example.org") == 200


def test_pages_of_other_origins_may_ask_only_where_that_is_set(bot):
    origin = {"origin": "https://page.example.org"}
    asks = {**origin, "access-control-request-method": "POST", "access-control-request-headers": "authorization"}
    with client(bot, TOKEN) as api:
        assert "access-control-allow-origin" not in api.get("/v1/models", headers=origin).headers
        assert api.options("/respond", headers=asks).status_code == 401
    with client(bot, TOKEN, cors_origins=["https://page.example.org"]) as api:
        allowed = api.options("/respond", headers=asks)
        assert (allowed.status_code, allowed.headers["access-control-allow-origin"]) == (200, origin["origin"])
        refused = api.get("/v1/models", headers=origin)  # the page can read why
        assert (refused.status_code, refused.headers["access-control-allow-origin"]) == (401, origin["origin"])
        stranger = api.get("/v1/models", headers={"origin": "https://else.example.org"})
        assert "access-control-allow-origin" not in stranger.headers


def test_bodies_of_another_type_or_too_long_are_refused_unread(api):
    assert error(api.post("/respond", content=b'{"context": ["hi"]}'), 415)["code"] == "unsupported_media_type"
    form = {"content-type": "text/plain"}  # what a page of any origin may send without asking
    assert error(api.post("/respond", content=b'{"context": ["hi"]}', headers=form), 415)
    long = json.dumps({"context": ["x" * 1_000_000]}).encode()
    headers = {"content-type": "application/json; charset=utf-8"}
    pieces = [long[start : start + 65_536] for start in range(0, len(long), 65_536)]
    for content in (long, iter(pieces)):
        response = api.post("/respond", content=content, headers=headers)
        assert error(response, 413)["message"] == "the body is longer than 262144 bytes"
        assert response.headers["connection"] == "close"


def test_paths_and_methods_that_do_not_exist(api):
    assert error(api.get("/nowhere"), 404)["code"] == "unknown_path"
    response = api.get("/respond")
    assert error(response, 405)["message"] == "this path takes no GET"
    assert response.headers["allow"] == "POST"
    assert error(api.put("/respond", json={}), 405)
    assert error(api.post("/v1/models"), 405)


def test_a_body_that_never_comes_is_given_up(bot):
    sent: list[Any] = []

    async def scene() -> None:
        app = create_app(Answerer(bot, name="tiny"), ServeSettings(timeout=0.05))

        async def never() -> Any:
            await asyncio.sleep(60)

        async def send(message: Any) -> None:
            sent.append(message)

        headers = [(b"host", b"localhost"), (b"content-type", b"application/json")]
        scope = {
            "type": "http", "method": "POST", "path": "/respond", "headers": headers, "query_string": b"",
            "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 2), "scheme": "http", "http_version": "1.1",
        }  # fmt: skip
        await app(scope, never, send)

    asyncio.run(scene())
    assert sent[0]["status"] == 408
    assert "the body did not arrive within 0.05 s" in sent[1]["body"].decode()


def test_a_student_that_fails_is_told_and_the_next_request_is_served(other, caplog):
    sound = other.respond_all

    def fails(contexts: Any, k: int, personas: Any) -> Any:
        if contexts[0][0] == "fail":
            raise RuntimeError(f"cannot read {contexts[0]}")
        return sound(contexts, k, personas=personas)

    other.respond_all = fails
    with client(other) as api, caplog.at_level(logging.INFO, "g2r_lightning"):
        assert (
            error(api.post("/respond", json={"context": ["fail", "secret"]}), 500)["message"]
            == "the server failed; its log says where"
        )
        assert api.post("/respond", json={"context": ["hi"]}).status_code == 200
    assert "RuntimeError" in caplog.text
    assert "in fails" in caplog.text
    assert "secret" not in caplog.text
    caplog.clear()
    with client(other, log_text=True) as api, caplog.at_level(logging.INFO, "g2r_lightning"):
        api.post("/respond", json={"context": ["fail", "secret"]})
    assert "secret" in caplog.text


def test_the_log_has_requests_and_no_text(bot, caplog):
    def logged(**settings: Any) -> str:
        caplog.clear()
        with client(bot, **settings) as api, caplog.at_level(logging.INFO):
            api.post("/respond?q=secret", json={"context": ["secret words", "😀"]})
            api.post(CHAT, json={"messages": [{"role": "user", "content": "secret"}], "n": "secret"})
            api.post("/secret", content=b"secret")
        return "\n".join(record.getMessage() for record in caplog.records if record.name.startswith("g2r_lightning"))

    quiet = logged()
    assert "POST /respond 200" in quiet
    assert f"POST {CHAT} 400" in quiet
    assert "POST (unknown) 404" in quiet
    assert "secret" not in quiet
    assert not any(text in quiet for text in TEXTS)
    assert "POST" not in logged(log_requests=False)
    assert 'asked ["secret words", "\\ud83d\\ude00"], answered [' in logged(log_text=True)


def test_what_takes_too_long_and_what_is_too_much_at_once(other):
    gate = threading.Event()
    begun = threading.Event()
    sound = other.respond_all

    def slow(contexts: Any, k: int, personas: Any) -> Any:
        if contexts[0][0] == "slow":
            begun.set()
            assert gate.wait(30)
        return sound(contexts, k, personas=personas)

    other.respond_all = slow
    with client(other, max_queue=1, timeout=0.3) as api:
        found: dict[str, Any] = {}

        def ask(text: str) -> None:
            found[text] = api.post("/respond", json={"context": [text]})

        threads = [threading.Thread(target=ask, args=(text,)) for text in ("slow", "waits")]
        threads[0].start()
        assert begun.wait(30)
        threads[1].start()
        for _ in range(1000):
            if "g2r_queue_depth 1.0" in api.get("/metrics").text or "waits" in found:
                break
            time.sleep(0.002)
        if "waits" not in found:
            assert error(api.post("/respond", json={"context": ["too many"]}), 503)["code"] == "overloaded"
        for thread in threads:
            thread.join()
        gate.set()
        assert error(found["slow"], 504)["code"] == error(found["waits"], 504)["code"] == "timeout"
        assert api.post("/respond", json={"context": ["hi"]}).status_code == 200


# -- the description, and whatever else anybody may send


def test_the_description_names_every_answer_that_a_route_gives(api):
    described = api.get("/openapi.json").json()
    assert set(described["paths"]) == {
        "/health", "/metrics", "/respond", CHAT, "/v1/models", "/v1/models/{name}",
    }  # fmt: skip
    for path, statuses in {"/respond": {"400", "413", "415", "503", "504"}, CHAT: {"400", "404", "413"}}.items():
        responses = described["paths"][path]["post"]["responses"]
        assert statuses | {"200", "401", "403", "429", "500"} <= set(responses)
        assert "422" not in responses
    text = json.dumps(described)
    names = {part.split('"')[0] for part in text.split("#/components/schemas/")[1:]}
    assert names <= set(described["components"]["schemas"])


NASTY = st.text("ab\u00e9\u3000 \n\t\x00\x1b\ud83d\udfff\u200b\U0001f600\ufffe", max_size=8)
JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | NASTY,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NASTY, inner, max_size=3),
    max_leaves=6,
)
MESSAGES = st.lists(
    st.fixed_dictionaries({"role": st.sampled_from(["system", "user", "assistant", "tool"]), "content": JSON_VALUES}),
    max_size=4,
)


@settings(max_examples=60)
@given(
    st.sampled_from(["/respond", CHAT]),
    st.dictionaries(
        st.sampled_from(
            ["context", "k", "persona", "rules", "messages", "n", "model", "stream", "stop", "temperature"]
        ),
        JSON_VALUES | MESSAGES,
    ),
)
def test_no_body_breaks_the_server(api, path, body):
    response = api.post(path, content=json.dumps(body).encode(), headers={"content-type": "application/json"})
    assert response.status_code in (200, 400, 404)
    if response.status_code != 200:
        assert ErrorBody.model_validate_json(response.content, strict=True).error.message


@settings(max_examples=40)
@given(st.lists(NASTY, min_size=1, max_size=5), st.integers(1, 100))
def test_any_text_is_answered_or_refused_by_name(api, context, k):
    body = json.dumps({"context": context, "k": k})
    response = api.post("/respond", content=body.encode(), headers={"content-type": "application/json"})
    context = json.loads(body)["context"]  # two escaped halves of a pair are one sign to every JSON reader
    if not all(turn.split() for turn in context) or any(
        "\ud800" <= sign <= "\udfff" for turn in context for sign in turn
    ):
        error(response, 400)
    else:
        assert len(response.json()["replies"]) == min(k, 6)
