"""How texts become tokens: which end is kept, what stays plain text, with special tokens and without."""

from __future__ import annotations

from pathlib import Path

import pytest

from g2r_lightning.dialogue import Example
from g2r_lightning.errors import G2RError
from g2r_lightning.student import StudentText
from tiny import WORDS

PAD, UNK, CLS, SEP = 0, 1, 2, 3


def ids(words: str) -> list[int]:
    """Return the tiny tokenizer's ids of known words."""
    return [5 + WORDS.index(word) for word in words.split()]


def contexts(student: StudentText, *lines: list[str]) -> list[list[int]]:
    return list(student.encode_contexts(lines))


@pytest.fixture(scope="module")
def bytes_folder(tmp_path_factory) -> Path:
    """A byte-level tokenizer without any special token, in GPT-2's manner."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({letter: i for i, letter in enumerate(alphabet)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    folder = tmp_path_factory.mktemp("bytes")
    PreTrainedTokenizerFast(tokenizer_object=tokenizer).save_pretrained(str(folder))
    return folder


@pytest.fixture
def student(tiny_encoder_folder) -> StudentText:
    return StudentText(max_context_tokens=8, max_response_tokens=6).bind(str(tiny_encoder_folder))


def test_a_bert_like_tokenizer_frames_and_separates(student):
    assert contexts(student, ["hi you", "yes ."]) == [[CLS, *ids("hi you"), SEP, *ids("yes ."), SEP]]
    assert list(student.encode_responses(["hi you"])) == [[CLS, *ids("hi you"), SEP]]
    assert student.pad_id == PAD


def test_a_tokenizer_without_special_tokens_gets_none(bytes_folder):
    plain = StudentText(max_context_tokens=12).bind(str(bytes_folder))
    assert plain.tokenizer.decode(contexts(plain, ["hi", "you"])[0]) == "hi\nyou"
    assert plain.tokenizer.decode(contexts(plain, ["how are you", "fine"])[0]) == "are you\nfine"
    assert plain.tokenizer.decode(next(plain.encode_responses(["hi"]))) == "hi"
    assert plain.pad_id == 0
    marked = StudentText(separator=" | ").bind(str(bytes_folder))
    assert marked.tokenizer.decode(contexts(marked, ["hi", "you"])[0]) == "hi | you"


def test_a_long_context_keeps_its_end(student):
    turn = "dog " * 10_000 + "i love pizza"
    (tokens,) = contexts(student, ["hello", turn])
    assert tokens == [CLS, *ids("dog dog dog i love pizza"), SEP]


def test_a_long_response_keeps_its_beginning(student):
    (tokens,) = student.encode_responses(["i love pizza . " + "dog " * 10_000])
    assert tokens == [CLS, *ids("i love pizza ."), SEP]


def test_the_last_utterance_survives_what_came_before(student):
    (tokens,) = contexts(student, ["dog " * 100, "cat", "i love tea"])
    assert tokens == [CLS, SEP, *ids("cat"), SEP, *ids("i love tea"), SEP]


def test_a_marker_in_a_text_stays_text(tiny_encoder_folder):
    student = StudentText().bind(str(tiny_encoder_folder))
    (tokens,) = contexts(student, ["hi [SEP] [CLS] you [PAD]"])
    assert tokens[0] == CLS
    assert tokens[-1] == SEP
    assert not {PAD, CLS, SEP} & set(tokens[1:-1])
    assert tokens[1] == ids("hi")[0]
    (reply,) = student.encode_responses(["[SEP]"])
    assert reply.count(SEP) == 1


@pytest.mark.parametrize("said", ["😀👩‍👩‍👧‍👦🇫🇷", "привет 你好 مرحبا नमस्ते", "e\u0301 \u00e9 \u200b\u2028", "\x00\x1f"])
def test_emoji_and_mixed_scripts(student, bytes_folder, said):
    for tokens in [*contexts(student, [said, "yes"]), *student.encode_responses([said])]:
        assert tokens[0] == CLS
        assert tokens[-1] == SEP
        assert 2 <= len(tokens) <= 8
    plain = StudentText(max_response_tokens=512).bind(str(bytes_folder))
    assert plain.tokenizer.decode(next(plain.encode_responses([said])), clean_up_tokenization_spaces=False) == said


def test_lines_persona_first_then_the_last_utterances(tiny_encoder_folder):
    student = StudentText(history=2, persona="own", lower=True).bind(str(tiny_encoder_folder))
    example = Example("t:d:3", ("A", "B", "C"), "D", persona=("I love pizza",), partner_persona=("no",))
    assert student.context_lines(example) == ["i love pizza", "b", "c"]
    assert student.key(" Yes  please ") == student.key("yes please")


def test_equal_texts_are_equal_as_the_student_reads_them(tiny_encoder_folder):
    assert StudentText(lower=True).key("Yes") == StudentText().key("yes")
    assert StudentText(lower=False).key("Yes") != StudentText().key("yes")


def test_blocks_of_lines_change_nothing(student, monkeypatch):
    lines = [["hi", "you"], ["yes"], ["hi", "no", "tea"], ["hi"]]
    together = contexts(student, *lines)
    monkeypatch.setattr("g2r_lightning.student.text.LINES_AT_ONCE", 1)
    assert contexts(student, *lines) == together


def test_what_cannot_serve_is_refused(tiny_encoder_folder, tmp_path):
    with pytest.raises(ValueError, match="at least 4"):
        StudentText(max_context_tokens=3)
    with pytest.raises(ValueError, match="history=0"):
        StudentText(history=0)
    with pytest.raises(G2RError, match=r"text\.init_args\.tokenizer=.*nowhere: no such folder"):
        StudentText(tokenizer=str(tmp_path / "nowhere")).bind(str(tiny_encoder_folder))
    with pytest.raises(RuntimeError, match="bind"):
        _ = StudentText().tokenizer
