import pytest
from hypothesis import given
from hypothesis import strategies as st

from g2r_lightning.metrics.diversity import distinct_n, mean_length, normalise_reply, reply_diversity, tokens


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        ("hello , how are you ?", "Hello, how are you?"),
        ("  that is  great !   really . ", "That is great! Really."),
        ("i think i 'm fine", "I think I'm fine"),
        ("it ' s ok , we don ' t mind", "It's ok, we don't mind"),
        ("it\u2019s what i\u2019ve said", "It\u2019s what I\u2019ve said"),
        ("NO WAY! I LOVE IT", "No way! I love it"),
        ("wait . . . what ?", "Wait... What?"),
        ('"yes ," he said', '"Yes," he said'),
        ("i paid 3.50 at example.com :)", "I paid 3.50 at example.com :)"),
        ("he said 'hello' to iris", "He said 'hello' to iris"),
        ("привет , как дела ?", "Привет, как дела?"),
        ("", ""),
        ("!?", "!?"),
    ],
)
def test_normalise_reply(raw, expected):
    assert normalise_reply(raw) == expected


@given(st.text(alphabet="abi .,?!'IX\n\u2019\U0001f600", max_size=40))
def test_normalising_forgets_case_and_happens_once(text):
    once = normalise_reply(text)
    assert normalise_reply(once) == once
    assert normalise_reply(text.upper()) == once


def test_tokens_keep_case_emoticons_and_contractions():
    assert tokens("I LOVE it, don't you? :-) \U0001f600") == [
        "I",
        "LOVE",
        "it",
        ",",
        "don't",
        "you",
        "?",
        ":-)",
        "\U0001f600",
    ]


def test_distinct_n_is_of_the_corpus():
    texts = ["a b a b", "a b c"]
    assert distinct_n(texts, 1) == 3 / 7
    assert distinct_n(texts, 2) == 3 / 5  # ab ba ab | ab bc
    assert distinct_n(texts, 3) == 3 / 3  # aba bab | abc
    assert distinct_n(texts * 10, 2) == 3 / 50


def test_no_gram_reaches_across_texts():
    assert distinct_n(["a", "b", "a"], 2) == 0.0
    assert distinct_n(["a b", "c a"], 2) == 1.0


def test_nothing_to_count_is_zero():
    assert distinct_n([], 2) == 0.0
    assert mean_length([]) == 0.0
    assert distinct_n(["", "hi"], 2) == 0.0
    assert reply_diversity([]) == {"distinct_2": 0.0, "distinct_3": 0.0, "mean_length": 0.0}


def test_mean_length_counts_empty_replies():
    assert mean_length(["hi there!", "", "ok"]) == (3 + 0 + 1) / 3


def test_n_below_one_is_refused():
    with pytest.raises(ValueError, match="n=0"):
        distinct_n(["a"], 0)


def test_typography_does_not_make_replies_differ():
    figures = reply_diversity(iter(["i 'm so happy .", "I'm so happy."]))
    assert figures == {"distinct_2": 3 / 6, "distinct_3": 2 / 4, "mean_length": 4.0}
