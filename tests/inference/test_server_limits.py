"""What is too much: rates by hand and as a property, lengths, tokens, settings that contradict themselves."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("fastapi", reason="needs the extra `serve`")

from g2r_lightning.errors import ConfigError
from g2r_lightning.inference.server.limits import TokenBuckets, check_k, check_texts, client_key
from g2r_lightning.inference.server.refusals import RefusedError
from g2r_lightning.inference.server.settings import ServeSettings, read_token

LIMITS = ServeSettings(max_turns=3, max_turn_chars=5, max_k=9, k=2)


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_bucket_by_hand():
    clock = Clock()
    buckets = TokenBuckets(rate=2.0, burst=3, clock=clock)
    assert [buckets.take("a") for _ in range(4)] == [0, 0, 0, pytest.approx(0.5)]  # 3 at once; one comes in 1/2 s
    clock.now += 0.25
    assert buckets.take("a") == pytest.approx(0.25)
    assert buckets.take("b") == 0  # another client has a bucket of its own
    clock.now += 0.25
    assert buckets.take("a") == 0
    clock.now += 1000  # a bucket holds no more than its burst
    assert [buckets.take("a") > 0 for _ in range(4)] == [False, False, False, True]


@given(st.floats(0.1, 50), st.integers(1, 20), st.lists(st.floats(0, 0.5), min_size=1, max_size=60))
def test_no_window_lets_more_through_than_the_burst_and_the_rate(rate, burst, pauses):
    clock = Clock()
    buckets = TokenBuckets(rate, burst, clock=clock)
    passed = []
    for pause in pauses:
        clock.now += pause
        wait = buckets.take("a")
        if not wait:
            passed.append(clock.now)
        else:
            assert 0 < wait <= 1 / rate
    for first in range(len(passed)):
        for last in range(first, len(passed)):
            assert last - first + 1 <= burst + rate * (passed[last] - passed[first]) + 1e-6


def test_forgotten_clients_bound_the_memory_and_no_rate_remembers_none():
    buckets = TokenBuckets(rate=1.0, burst=1, clients=10, clock=Clock())
    for number in range(1000):
        assert buckets.take(str(number)) == 0
    assert len(buckets._buckets) == 10
    unlimited = TokenBuckets(rate=0.0, burst=1)
    assert not any(unlimited.take("a") for _ in range(1000))
    assert not unlimited._buckets


def test_a_refusal_says_how_long_to_wait():
    buckets = TokenBuckets(rate=0.25, burst=1, clock=Clock())
    buckets.check("a")
    with pytest.raises(RefusedError, match=r"more than 0.25 requests per second; wait 4 s") as refused:
        buckets.check("a")
    assert (refused.value.status, refused.value.headers) == (429, {"retry-after": "4"})


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("2001:db8:1:2::1", "2001:db8:1:2:ffff::9", True),
        ("2001:db8:1:2::1", "2001:db8:1:3::1", False),
        ("::ffff:192.0.2.1", "192.0.2.1", True),
        ("fe80::1%eth0", "fe80::1", True),
        ("192.0.2.1", "192.0.2.2", False),
    ],
)
def test_whose_bucket_it_is(one, other, same):
    assert (client_key(one) == client_key(other)) == same


@pytest.mark.parametrize(
    ("texts", "message", "code"),
    [
        (["a"] * 4, "context: 4, and at most 3 are taken", "too_many_turns"),
        (["a", "123456"], r"context\[1\]: 6 characters, and at most 5", "text_too_long"),
        (["a", " \n\u3000"], r"context\[1\]: is empty", "empty_text"),
        (["\ud83d"], r"context\[0\]: holds half of a character", "invalid_text"),
    ],
)
def test_texts_that_are_refused(texts, message, code):
    with pytest.raises(RefusedError, match=message) as refused:
        check_texts(texts, "context", LIMITS)
    assert (refused.value.status, refused.value.code) == (400, code)


def test_texts_and_counts_at_the_limit_pass():
    check_texts(["12345"] * 3, "context", LIMITS)
    check_k(9, "k", LIMITS)
    with pytest.raises(RefusedError, match="k=10: at most 9 replies"):
        check_k(10, "k", LIMITS)
    with pytest.raises(ConfigError, match=r"--serve.k=5: more than --serve.max_k=4"):
        ServeSettings(k=5, max_k=4)


def test_a_token_comes_from_the_environment_or_a_file_and_is_no_guessable_one(tmp_path):
    assert read_token(ServeSettings(), {}) is None
    assert read_token(ServeSettings(), {"G2R_TOKEN": "0123456789abcdef"}) == "0123456789abcdef"
    (tmp_path / "token").write_text("fedcba9876543210 \nanother line\n")
    named = ServeSettings(token_file=str(tmp_path / "token"))
    assert read_token(named, {"G2R_TOKEN": "0123456789abcdef"}) == "fedcba9876543210"
    for wrong in ("short", "", "with a space in it, but long", "ключ-ключ-ключ-ключ"):
        with pytest.raises(ConfigError, match="G2R_TOKEN: a token is at least 16 letters"):
            read_token(ServeSettings(), {"G2R_TOKEN": wrong})
    with pytest.raises(ConfigError, match=r"token_file=.*absent: cannot be read"):
        read_token(ServeSettings(token_file=str(tmp_path / "absent")), {})
