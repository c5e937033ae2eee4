"""A generating teacher behind an OpenAI-compatible server: vLLM, llama.cpp, a vendor.

A context becomes chat messages whose last is the user's; roles alternate backwards from there, and what precedes the
utterances (instructions, persona, knowledge) is the system message. Requests run side by side, and their replies come
back in the order asked for. Each carries a seed of its own, made of the run's seed, the example and the reply: a server
that honours seeds gives the same replies after a restart, as far as its batches round alike.

There are no likelihoods of given replies behind this interface: data-level G2R works, ``score`` refuses.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import suppress
from functools import cached_property
from itertools import islice
from queue import SimpleQueue
from threading import Event, Lock, Thread
from typing import Any, TypeVar
from urllib.parse import urlsplit

from g2r_lightning.dialogue.context import ContextFormat, KnowledgeLines, PersonaLines
from g2r_lightning.dialogue.types import Example
from g2r_lightning.errors import ConfigError, G2RError
from g2r_lightning.extras import extra
from g2r_lightning.teacher.batching import stable_seed
from g2r_lightning.teacher.generator import Generator, WrittenText
from g2r_lightning.teacher.sampling import Sampling
from g2r_lightning.teacher.template import fold

Message = dict[str, str]
Job = TypeVar("Job")
Result = TypeVar("Result")

NO_KEY = "none"
"""What local servers are told, which ask for no key."""

_SEEDS = 2**31
"""Servers differ in the integers that they take as seeds; all take these."""

_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_FIRST_WAIT_S, _LONGEST_WAIT_S = 0.5, 8.0
"""Between readings that fail: as the client waits before its own retries."""

_CUT_OFF = ("length", "content_filter")


class EndpointTeacher(Generator):
    """Write replies by ``POST {base_url}/chat/completions``.

    Args:
        base_url: of the server, up to and with ``/v1``.
        model: name of the model there.
        api_key_env: name of the environment variable that holds the key, never the key; local servers need none.
        system: instructions in front of every conversation.
        history: how many of the last utterances are sent.
        persona: whose persona lines go into the system message.
        knowledge: which knowledge lines go there.
        lower: lower-case everything sent.
        user_first: leave out a first message that would be the assistant's: the chat templates of Mistral and Gemma
            refuse it.
        concurrency: requests under way at a time.
        max_retries: of a request that fails for a reason that may pass: no connection, a timeout, 408, 409, 429, 5xx,
            an answer that cannot be read. Waits double from half a second, or are what the server asks for.
        timeout_s: seconds until a request counts as failed.
        ask_n: ask for all replies to a context in one request, which reads the context once; where a server gives fewer
            the rest is asked for one by one. ``False`` asks one by one from the start.

    Raises:
        ConfigError: a setting is out of range.
    """

    def __init__(
        self,
        base_url: str,
        model: str,
        api_key_env: str | None = None,
        system: str = "",
        history: int = 20,
        persona: PersonaLines = "none",
        knowledge: KnowledgeLines = "none",
        lower: bool = False,
        user_first: bool = False,
        concurrency: int = 8,
        max_retries: int = 5,
        timeout_s: float = 120.0,
        ask_n: bool = True,
    ) -> None:
        self.base_url = base_url.rstrip("/")
        self.model = model
        self.api_key_env = api_key_env
        self.system = system
        self.format = ContextFormat(history=history, persona=persona, knowledge=knowledge, lower=lower)
        self.user_first = user_first
        self.concurrency = concurrency
        self.max_retries = max_retries
        self.timeout_s = timeout_s
        self.ask_n = ask_n
        self._check()

    def check(self, sampling: Sampling) -> None:
        """Refuse a decoding that chat completions do not know.

        Raises:
            ConfigError: names the setting.
        """
        request_settings(sampling)

    def generate(self, contexts: Sequence[Example], sampling: Sampling, seed: int = 0) -> list[list[WrittenText]]:
        """Write ``sampling.num_replies`` replies to each context.

        Args:
            contexts: examples; their responses are not looked at.
            sampling: how replies are drawn. ``temperature``, ``top_p`` and ``max_tokens`` are always sent; ``top_k``,
                ``typical_p`` and ``min_tokens``, which not every server knows, where they are not the default.
            seed: of the random draws.

        Returns:
            A list of replies for each context, in the order given. Tokens are counted where a server tells them for
            each reply, that is for requests of one.

        Raises:
            ConfigError: the decoding cannot be asked for.
            G2RError: a request failed; names the server, the example, the reason and the remedy.
        """
        settings = request_settings(sampling)
        each = sampling.num_replies if self.ask_n else 1
        _ = self._client  # made here, once, and where it cannot be, refused here
        jobs = [(row, first) for row in range(len(contexts)) for first in range(0, sampling.num_replies, each)]
        answers: dict[tuple[int, int], list[WrittenText]] = {}
        for (row, first), texts in side_by_side(
            lambda job: self._replies(contexts[job[0]], job[1], each, settings, seed), jobs, self.concurrency
        ):
            answers[row, first] = texts
            self.progress(int(first == 0), len(texts), sum(text.num_tokens for text in texts))
        replies: list[list[WrittenText]] = [[] for _ in contexts]
        for row, first in jobs:
            replies[row] += answers[row, first]
        return replies

    def describe(self) -> dict[str, str | None]:
        """Return what a manifest says of a teacher: the name alone, since nobody can tell which weights are served."""
        return {"name": self.model, "revision": None, "weights_hash": None, "dtype": None}

    def describe_template(self) -> dict[str, str | int]:
        """Return how a context becomes messages, and whose chat template makes tokens of them: the host's."""
        return {
            "template": "chat-completions",
            "host": _host(self.base_url),
            "system": self.system,
            "history": self.format.history,
            "persona": self.format.persona,
            "knowledge": self.format.knowledge,
            "lower": self.format.lower,
            "user_first": self.user_first,
        }

    def messages(self, example: Example) -> list[Message]:
        """Return a context as chat messages, oldest first, the system message before them; the last is the user's."""
        lines = [_sendable(fold(line)) for line in self.format.lines(example)]
        turns = min(self.format.history, len(example.context))
        notes, said = lines[: len(lines) - turns], lines[len(lines) - turns :]
        if self.user_first and turns > 1 and turns % 2 == 0:
            said = said[1:]
        roles = ("user", "assistant")
        messages = [{"role": roles[place % 2], "content": turn} for place, turn in enumerate(reversed(said))][::-1]
        system = "\n".join(line for line in (_sendable(self.system), *notes) if line)
        return [{"role": "system", "content": system}, *messages] if system else messages

    # -- inner parts -----------------------------------------------------------------------------------------------

    def _check(self) -> None:
        parts = urlsplit(self.base_url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ConfigError(f"teacher.init_args.base_url={self.base_url}: use http://HOST:PORT/v1 or https://HOST/v1")
        if "@" in parts.netloc:
            raise ConfigError("teacher.init_args.base_url holds a password: put the key into a variable (api_key_env)")
        if self.api_key_env is not None and not _VARIABLE.fullmatch(self.api_key_env):
            raise ConfigError("teacher.init_args.api_key_env is no variable's name: name the variable, not the key")
        if not self.model:
            raise ConfigError("teacher.init_args.model is empty: name a model of the server")
        for name, least in (("concurrency", 1), ("max_retries", 0)):
            if getattr(self, name) < least:
                raise ConfigError(f"teacher.init_args.{name}={getattr(self, name)}: use {least} or more")
        if self.timeout_s <= 0:
            raise ConfigError(f"teacher.init_args.timeout_s={self.timeout_s}: use more than 0 seconds")

    @property
    def _key(self) -> str:
        return (os.environ.get(self.api_key_env) if self.api_key_env else None) or NO_KEY

    @cached_property
    def _client(self) -> Any:
        """The client, made at the first request: one pool of connections for all threads."""
        with extra("endpoint"):
            from openai import OpenAI
        return OpenAI(base_url=self.base_url, api_key=self._key, timeout=self.timeout_s, max_retries=self.max_retries)

    def _replies(
        self, example: Example, first: int, count: int, settings: dict[str, Any], seed: int
    ) -> list[WrittenText]:
        """Return the replies ``first`` to ``first + count - 1`` to an example."""
        replies = self._ask(example, count, settings, stable_seed(seed, [example.id, str(first)]))[:count]
        while len(replies) < count:  # the server knows no n, or allows fewer
            number = first + len(replies)
            replies += self._ask(example, 1, settings, stable_seed(seed, [example.id, str(number)]))[:1]
        return replies

    def _ask(self, example: Example, count: int, settings: dict[str, Any], seed: int) -> list[WrittenText]:
        """Ask for replies until the answer can be read, and return them, at least one; the client retries the rest.

        Raises:
            G2RError: it failed for good.
        """
        request = {"n": count, **settings} if count > 1 else settings
        for attempt in range(self.max_retries):
            with suppress(ValueError):
                return read_replies(self._send(example, request, seed))
            time.sleep(min(_FIRST_WAIT_S * 2**attempt, _LONGEST_WAIT_S))
        try:
            return read_replies(self._send(example, request, seed))
        except ValueError as error:
            raise self._failure(example, f"the answer is no chat completion: {error}") from error

    def _send(self, example: Example, request: dict[str, Any], seed: int) -> Any:
        """Send one request and return what the client makes of the answer.

        Raises:
            G2RError: it failed for good.
            ValueError: the answer is not JSON.
        """
        with extra("endpoint"):
            import openai
        try:
            return self._client.chat.completions.create(
                model=self.model, messages=self.messages(example), seed=seed % _SEEDS, **request
            )
        except openai.APIStatusError as error:
            raise self._failure(example, str(error), error.status_code) from error
        except openai.APIConnectionError as error:
            raise self._failure(example, f"{error} {error.__cause__ or ''}".strip()) from error
        except openai.APIError as error:
            raise ValueError(str(error)) from error

    def _failure(self, example: Example, reason: str, status: int | None = None) -> G2RError:
        text = fold(reason).replace(self._key, "***") if self._key != NO_KEY else fold(reason)
        where = f"{self.base_url}: example {example.id}: {text[:300]}"
        if status in (401, 403):
            key = f"the key in {self.api_key_env}" if self.api_key_env else "a key: name its variable in api_key_env"
            missing = " (it is not set)" if self.api_key_env and self._key == NO_KEY else ""
            return ConfigError(f"{where}: check teacher.init_args: the server wants {key}{missing}")
        if status == 404:
            return ConfigError(f"{where}: check teacher.init_args.model={self.model} and base_url")
        if status is not None and 400 <= status < 500 and status not in (408, 409, 429):
            return ConfigError(f"{where}: the server refuses the request: check the settings of sampling and teacher")
        return G2RError(
            f"{where}: given up after {self.max_retries} retries: when the server answers again, run the same command "
            "again, finished shards are kept; teacher.init_args.max_retries and timeout_s allow for more"
        )


def side_by_side(work: Callable[[Job], Result], jobs: Sequence[Job], threads: int) -> Iterator[tuple[Job, Result]]:
    """Do jobs in threads, and yield each with its result as it is ready.

    The first failure ends it, and so does Ctrl-C. What is under way then is waited for neither here nor at the end of
    the process, as a pool of threads would: a request may take its time-out as often as it is tried again.

    Args:
        work: does one job.
        jobs: begun in this order.
        threads: at a time.

    Raises:
        Exception: what a job raised.
    """
    left, ready = iter(jobs), SimpleQueue[tuple[Job, Future[Result]]]()
    lock, stopped = Lock(), Event()

    def loop() -> None:
        """Do one job after the other."""
        while not stopped.is_set():
            with lock:
                found = list(islice(left, 1))
            if not found:
                return
            result: Future[Result] = Future()
            try:
                result.set_result(work(found[0]))
            except BaseException as error:  # raised where the result is asked for
                result.set_exception(error)
            ready.put((found[0], result))

    for number in range(min(threads, len(jobs))):
        Thread(target=loop, name=f"endpoint-{number}", daemon=True).start()
    try:
        for _ in jobs:
            job, done = ready.get()
            yield job, done.result()
    finally:
        stopped.set()


def request_settings(sampling: Sampling) -> dict[str, Any]:
    """Return a decoding as fields of a request.

    Raises:
        ConfigError: chat completions know no such decoding.
    """
    if sampling.method != "sample":
        raise ConfigError(f"sampling.method={sampling.method}: an EndpointTeacher can only sample; use method: sample")
    for name in ("no_repeat_ngram", "no_context_ngram"):
        if getattr(sampling, name):
            raise ConfigError(
                f"sampling.{name}={getattr(sampling, name)}: servers cannot block n-grams; use 0, and the filters "
                "Repetitive and RepeatsContext"
            )
    usual = Sampling()
    unofficial = {
        name: getattr(sampling, name)
        for name in ("top_k", "typical_p", "min_tokens")
        if getattr(sampling, name) != getattr(usual, name)
    }
    settings: dict[str, Any] = {
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "max_tokens": sampling.max_tokens,
    }
    return {**settings, "extra_body": unofficial} if unofficial else settings


def read_replies(answer: Any) -> list[WrittenText]:
    """Return the replies of a chat completion in the order of their indices.

    Args:
        answer: as the client gives it, which checks none of it.

    Raises:
        ValueError: it has another form.
    """
    try:
        choices = sorted(answer.choices, key=lambda choice: choice.index or 0)
        texts = [(choice.message.content or "", choice.finish_reason) for choice in choices]
        tokens = (getattr(answer.usage, "completion_tokens", None) or 0) if len(choices) == 1 else 0
        replies = [WrittenText(fold(text), reason not in _CUT_OFF, tokens) for text, reason in texts]
    except (AttributeError, TypeError) as error:
        raise ValueError(f"{fold(str(answer))[:200]!r}") from error
    if not replies:
        raise ValueError("it holds no choices")
    return replies


def _host(base_url: str) -> str:
    """Return host and port of an address, without what else may stand in it."""
    parts = urlsplit(base_url)
    return f"{parts.hostname}:{parts.port}" if parts.port else str(parts.hostname)


def _sendable(text: str) -> str:
    """Return a text as UTF-8 can carry it: lone surrogates, which JSON files may hold, become question marks."""
    return text.encode("utf-8", "replace").decode()
