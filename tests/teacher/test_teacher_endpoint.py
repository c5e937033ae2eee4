from __future__ import annotations

import builtins
import json
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from chat_server import Answer, Body, completion, serving
from jsonargparse import ArgumentParser

from g2r_lightning.dialogue import Example
from g2r_lightning.errors import ConfigError, G2RError
from g2r_lightning.teacher import endpoint
from g2r_lightning.teacher.endpoint import EndpointTeacher
from g2r_lightning.teacher.generator import Generator, WrittenText
from g2r_lightning.teacher.sampling import Sampling


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    started = time.monotonic()
    yield
    assert time.monotonic() - started < 20


def teacher(base_url: str, **settings: Any) -> EndpointTeacher:
    return EndpointTeacher(**{"base_url": base_url, "model": "m", "max_retries": 2, "timeout_s": 5.0, **settings})


def last_turn(body: Body) -> str:
    return str(body["messages"][-1]["content"])


def many(count: int) -> list[Example]:
    return [Example(f"t:a:{number}", (f"turn {number}",), "gold") for number in range(count)]


def texts(replies: list[list[WrittenText]]) -> list[list[str]]:
    return [[reply.text for reply in own] for own in replies]


def echo(number: int, body: Body) -> Answer:
    return Answer(completion(*[f"{last_turn(body)} reply {place}" for place in range(body.get("n", 1))]))


@pytest.mark.parametrize("ask_n", [True, False])
def test_replies_come_in_order_whichever_is_ready_first(ask_n: bool) -> None:
    def behave(number: int, body: Body) -> Answer:
        answer = echo(number, body)
        answer.delay_s = 0.12 if number == 0 else 0.01 * (7 * number % 5)
        return answer

    with serving(behave) as (url, chat):
        replies = teacher(url, concurrency=4, ask_n=ask_n).generate(many(9), Sampling(num_replies=2))
    kinds = [0, 1] if ask_n else [0, 0]
    assert texts(replies) == [[f"turn {row} reply {place}" for place in kinds] for row in range(9)]
    assert len(chat.requests) == (9 if ask_n else 18)
    assert 2 <= chat.most_under_way <= 4
    assert set(chat.paths) == {"/v1/chat/completions"}


def test_seeds_depend_on_seed_example_and_reply_alone() -> None:
    def seeds(order: int, seed: int, **settings: Any) -> dict[tuple[str, int], int]:
        with serving(echo) as (url, chat):
            teacher(url, **settings).generate(many(4)[::order], Sampling(num_replies=3), seed)
        asked: dict[tuple[str, int], int] = {}
        for body in sorted(chat.requests, key=lambda body: (last_turn(body), body["seed"])):
            asked[last_turn(body), len([key for key in asked if key[0] == last_turn(body)])] = body["seed"]
        return asked

    one = seeds(1, 0, ask_n=False, concurrency=1)
    assert len(set(one.values())) == 12
    assert all(0 <= seed < 2**31 for seed in one.values())
    assert seeds(-1, 0, ask_n=False, concurrency=8) == one
    assert not set(seeds(1, 1, ask_n=False).values()) & set(one.values())
    assert set(seeds(1, 0, ask_n=True).values()) < set(one.values())


def test_a_server_that_ignores_n_is_asked_one_by_one() -> None:
    def behave(number: int, body: Body) -> Answer:
        return Answer(completion(f"seed {body['seed']}"))

    with serving(behave) as (url, chat):
        topped_up = teacher(url).generate(many(2), Sampling(num_replies=3))
        one_by_one = teacher(url, ask_n=False).generate(many(2), Sampling(num_replies=3))
    assert topped_up == one_by_one
    assert [body.get("n") for body in chat.requests].count(3) == 2
    assert all(len({reply.text for reply in own}) == 3 for own in topped_up)


def test_more_choices_than_asked_for_are_left() -> None:
    with serving(lambda number, body: Answer(completion("a", "b", "c"))) as (url, _):
        assert texts(teacher(url).generate(many(1), Sampling(num_replies=2))) == [["a", "b"]]
        assert texts(teacher(url, ask_n=False).generate(many(1), Sampling(num_replies=2))) == [["a", "a"]]


def test_ends_and_tokens() -> None:
    answers = {
        "turn 0": completion(" two  words\n", tokens=3),
        "turn 1": completion("cut", finish="length", tokens=40),
        "turn 2": completion("untold", tokens=None),
        "turn 3": {**completion("x"), "choices": [{"index": 0, "finish_reason": "stop", "message": {"content": None}}]},
        "turn 4": completion("blocked", finish="content_filter"),
    }
    with serving(lambda number, body: Answer(answers[last_turn(body)])) as (url, _):
        replies = teacher(url).generate(many(5), Sampling(num_replies=1))
    assert [own[0] for own in replies] == [
        WrittenText("two words", True, 3),
        WrittenText("cut", False, 40),
        WrittenText("untold", True, 0),
        WrittenText("", True, 7),
        WrittenText("blocked", False, 7),
    ]
    with serving(echo) as (url, _):
        (own,) = teacher(url).generate(many(1), Sampling(num_replies=2))
    assert [reply.num_tokens for reply in own] == [0, 0]  # a total of both is told, and cannot be divided


def test_what_is_sent() -> None:
    with serving(echo) as (url, chat):
        one = teacher(url)
        one.generate(many(1), Sampling(num_replies=1, temperature=0.7, top_p=0.95, max_tokens=30))
        one.generate(many(1), Sampling(num_replies=2, top_k=40, typical_p=0.9, min_tokens=5))
    plain, full = chat.requests
    assert set(plain) == {"model", "messages", "seed", "temperature", "top_p", "max_tokens"}
    assert (plain["model"], plain["temperature"], plain["top_p"], plain["max_tokens"]) == ("m", 0.7, 0.95, 30)
    assert (full["n"], full["top_k"], full["typical_p"], full["min_tokens"]) == (2, 40, 0.9, 5)


def test_messages() -> None:
    example = Example(
        "t:a:3", ("Hi!", "hello  there", "do you\nhike?"), "x", persona=("i hike",), knowledge=("hiking is walking",)
    )
    url = "http://127.0.0.1:1/v1"
    bare = [
        {"role": "user", "content": "Hi!"},
        {"role": "assistant", "content": "hello there"},
        {"role": "user", "content": "do you hike?"},
    ]
    assert teacher(url).messages(example) == bare
    full = teacher(url, system="Be brief.", persona="own", knowledge="dialogue", history=2, lower=True)
    system = {"role": "system", "content": "Be brief.\nhiking is walking\ni hike"}
    assert full.messages(example) == [system, *bare[1:]]
    assert teacher(url, history=2, user_first=True).messages(example) == bare[2:]
    assert teacher(url, history=3, user_first=True).messages(example) == bare
    broken = Example("t:b:1", ("a \ud83d b",), "x")
    assert teacher(url).messages(broken) == [{"role": "user", "content": "a ? b"}]


@pytest.mark.parametrize("failure", [Answer(status=429), Answer(status=500), Answer(status=503), Answer(dropped=True)])
def test_what_may_pass_is_tried_again(failure: Answer) -> None:
    with serving(lambda number, body: failure if number == 0 else echo(number, body)) as (url, chat):
        replies = teacher(url).generate(many(1), Sampling(num_replies=1))
    assert texts(replies) == [["turn 0 reply 0"]]
    assert len(chat.requests) == 2


@pytest.mark.parametrize(
    "body",
    [b"{not json", b"", b"<html>", b"[]", b"null", b'"text"', {"choices": []}, {"choices": None}, {"choices": [{}]}],
)
def test_an_answer_that_cannot_be_read(body: Body | bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endpoint, "_FIRST_WAIT_S", 0.0)
    with serving(lambda number, request: Answer(body) if number == 0 else echo(number, request)) as (url, chat):
        assert texts(teacher(url).generate(many(1), Sampling(num_replies=1))) == [["turn 0 reply 0"]]
    assert len(chat.requests) == 2
    with (
        serving(lambda number, request: Answer(body)) as (url, chat),
        pytest.raises(G2RError, match="t:a:0: the answer is no chat completion"),
    ):
        teacher(url, max_retries=0).generate(many(1), Sampling(num_replies=1))
    assert len(chat.requests) == 1


def test_what_does_not_pass_names_server_example_status_and_remedy() -> None:
    def behave(number: int, body: Body) -> Answer:
        return Answer({"error": {"message": "overloaded"}}, 503) if last_turn(body) == "turn 2" else echo(number, body)

    with serving(behave) as (url, chat):
        with pytest.raises(G2RError, match=r"example t:a:2: .*503.*overloaded.*finished shards are kept") as caught:
            teacher(url).generate(many(3), Sampling(num_replies=1))
        assert url in str(caught.value)
    assert [last_turn(body) for body in chat.requests].count("turn 2") == 3


def test_a_server_that_is_not_there() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/v1"
        with pytest.raises(G2RError, match=rf"{url}: example t:a:0: .*onnection.*run the same command"):
            teacher(url, max_retries=1).generate(many(1), Sampling(num_replies=1))


def test_a_server_that_does_not_answer_in_time() -> None:
    def behave(number: int, body: Body) -> Answer:
        answer = echo(number, body)
        answer.delay_s = 0.6
        return answer

    with serving(behave) as (url, chat), pytest.raises(G2RError, match="timed out"):
        teacher(url, timeout_s=0.2, max_retries=0).generate(many(1), Sampling(num_replies=1))
    assert len(chat.requests) == 1


@pytest.mark.parametrize(
    ("status", "named"), [(401, "G2R_TEST_KEY"), (403, "G2R_TEST_KEY"), (404, "model=m"), (400, "sampling")]
)
def test_what_cannot_pass_fails_at_once(status: int, named: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("G2R_TEST_KEY", "secret-of-mine")

    def behave(number: int, body: Body) -> Answer:
        if last_turn(body) == "turn 3":
            return Answer({"error": {"message": "no: secret-of-mine"}}, status)
        return Answer(completion("late"), delay_s=0.2)

    with serving(behave) as (url, chat):
        started = time.monotonic()
        with pytest.raises(ConfigError, match=rf"t:a:3.*{status}.*{named}") as caught:
            teacher(url, api_key_env="G2R_TEST_KEY", concurrency=4).generate(many(40), Sampling(num_replies=1))
        assert time.monotonic() - started < 2  # 40 slow ones, four at a time, take more
        assert "secret-of-mine" not in str(caught.value)
        assert set(chat.keys) == {"Bearer secret-of-mine"}
    assert [last_turn(body) for body in chat.requests].count("turn 3") == 1


def test_after_a_failure_nobody_waits_for_the_answers_under_way() -> None:
    held = threading.Event()

    def work(job: int) -> None:
        if job:
            held.wait(15)
        raise OSError("no answer")

    started = time.monotonic()
    with pytest.raises(OSError, match="no answer"):
        list(endpoint.side_by_side(work, [1, 0, 1], 2))
    under_way = [thread for thread in threading.enumerate() if thread.name.startswith("endpoint-")]
    assert time.monotonic() - started < 10
    assert under_way
    assert all(thread.daemon for thread in under_way)  # a pool's threads are waited for when the process ends
    held.set()


def test_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "of another server")
    monkeypatch.delenv("G2R_TEST_KEY", raising=False)
    with serving(echo) as (url, chat):
        teacher(url).generate(many(1), Sampling(num_replies=1))
        teacher(url, api_key_env="G2R_TEST_KEY").generate(many(1), Sampling(num_replies=1))
    assert chat.keys == ["Bearer none"] * 2
    with serving(lambda number, body: Answer(status=401)) as (url, _):
        with pytest.raises(ConfigError, match=r"G2R_TEST_KEY.*not set"):
            teacher(url, api_key_env="G2R_TEST_KEY").generate(many(1), Sampling(num_replies=1))
        with pytest.raises(ConfigError, match="name its variable in api_key_env"):
            teacher(url).generate(many(1), Sampling(num_replies=1))


def test_progress_is_told() -> None:
    told: list[tuple[int, int, int]] = []
    with serving(echo) as (url, _):
        for ask_n in (True, False):
            one = teacher(url, ask_n=ask_n)
            one.progress = lambda *counts: told.append(counts)
            one.generate(many(3), Sampling(num_replies=2))
            assert [sum(column) for column in zip(*told, strict=True)] == [3, 6, 0 if ask_n else 42]
            told.clear()


def test_it_is_made_from_yaml() -> None:
    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(Generator, "teacher")
    settings = {"base_url": "http://127.0.0.1:1/v1", "model": "m", "persona": "own", "concurrency": 2}
    chosen = {"class_path": "g2r_lightning.teacher.endpoint.EndpointTeacher", "init_args": settings}
    made = parser.instantiate_classes(parser.parse_object({"teacher": chosen})).teacher
    assert isinstance(made, EndpointTeacher)
    assert (made.format.persona, made.concurrency) == ("own", 2)


def test_no_contexts_ask_nothing() -> None:
    with serving(echo) as (url, chat):
        assert teacher(url).generate([], Sampling()) == []
    assert chat.requests == []


def test_what_the_manifest_says() -> None:
    one = teacher("https://llm.example.org:8443/v1/", system="Be brief.")
    assert isinstance(one, Generator)
    assert one.describe() == {"name": "m", "revision": None, "weights_hash": None, "dtype": None}
    told = one.describe_template()
    assert (told["template"], told["host"], told["system"]) == ("chat-completions", "llm.example.org:8443", "Be brief.")
    json.dumps(told)
    assert not hasattr(one, "log_likelihood")


@pytest.mark.parametrize(
    ("sampling", "complaint"),
    [
        (Sampling(method="beam"), "sampling.method=beam"),
        (Sampling(no_repeat_ngram=3), "sampling.no_repeat_ngram=3.*Repetitive"),
        (Sampling(no_context_ngram=3), "sampling.no_context_ngram=3.*RepeatsContext"),
    ],
)
def test_decodings_that_cannot_be_asked_for(sampling: Sampling, complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        teacher("http://127.0.0.1:1/v1").generate(many(1), sampling)


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"base_url": "localhost:8000/v1"}, "base_url=localhost:8000/v1: use http://"),
        ({"base_url": "https://me:hidden@host/v1"}, "holds a password"),
        ({"api_key_env": "sk-hidden-123"}, "name the variable, not the key"),
        ({"model": ""}, "model is empty"),
        ({"concurrency": 0}, "concurrency=0"),
        ({"max_retries": -1}, "max_retries=-1"),
        ({"timeout_s": 0}, "timeout_s=0"),
    ],
)
def test_settings_out_of_range_are_refused(settings: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint) as caught:
        teacher(**{"base_url": "http://127.0.0.1:1/v1", **settings})
    assert "hidden" not in str(caught.value)


def test_a_missing_client_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *rest: Any, **named: Any) -> Any:
        if name == "openai":
            raise ModuleNotFoundError("No module named 'openai'", name="openai")
        return real(name, *rest, **named)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ConfigError, match=r"openai is not installed: pip install 'g2r-lightning\[endpoint\]'"):
        teacher("http://127.0.0.1:1/v1").generate(many(1), Sampling())
