"""From a context to replies, with both kinds of students."""

from __future__ import annotations

import re

import pytest
import torch

from g2r_lightning.index import ResponseIndex, encode_rows, save_index
from g2r_lightning.inference import Reply, Responder
from g2r_lightning.inference.rules import ReplyRules
from g2r_lightning.inference.stopwatch import Stopwatch
from g2r_lightning.student import BiEncoder, PolyEncoder, StudentText

TEXTS = ["yes .", "no , never .", "i love pizza", "hello , how are you ?", "what a sad movie !", "😀"]


@pytest.fixture(params=["bi", "poly", "first"])
def bot(request, tiny_encoder_folder) -> Responder:
    torch.manual_seed(0)
    name = str(tiny_encoder_folder)
    encoder = {
        "bi": lambda: BiEncoder(name, shared=False),
        "poly": lambda: PolyEncoder(name, codes=4),
        "first": lambda: PolyEncoder(name, codes=4, code_type="first", normalise=True, output_scale=3.0),
    }[request.param]().eval()
    text = StudentText(max_context_tokens=24).bind(name)
    rows = [torch.tensor(ids).numpy() for ids in text.encode_responses(TEXTS)]
    vectors = encode_rows(encoder.encode_responses, rows, text.pad_id, torch.device("cpu"))
    sources = ["original", "generated", *["approved"] * 4]
    return Responder(ResponseIndex(TEXTS, sources, vectors.numpy()), encoder, text)


@torch.no_grad()
def brute_force(bot: Responder, context: list[str]) -> list[tuple[float, str]]:
    """Score every text with the context alone, one pair at a time."""
    (ids,) = bot.text.encode_contexts([context])
    scored = []
    for text in TEXTS:
        (own,) = bot.text.encode_responses([text])
        tensors = [
            torch.tensor([ids]),
            torch.ones(1, len(ids)).long(),
            torch.tensor([own]),
            torch.ones(1, len(own)).long(),
        ]
        scored.append((bot.encoder(*tensors).item(), text))
    return sorted(scored, reverse=True)


CONTEXTS = [["hi"], ["do you like pizza ?", "yes !", "why ?"], ["dog " * 500, "a cat ?"], ["привет 🍕"]]


def test_replies_are_the_best_of_all_pairs(bot):
    for context, replies in zip(CONTEXTS, bot.respond_all(CONTEXTS, k=3), strict=True):
        expected = brute_force(bot, context)[:3]
        assert [reply.text for reply in replies] == [text for _, text in expected]
        for reply, (score, _) in zip(replies, expected, strict=True):
            assert reply.score == pytest.approx(score, abs=1e-4)
            assert reply.source == bot.index.sources[TEXTS.index(reply.text)]


def test_one_context_is_answered_as_in_a_batch(bot):
    for context, together in zip(CONTEXTS, bot.respond_all(CONTEXTS, k=6), strict=True):
        alone = bot.respond(context, k=6)
        assert [reply.text for reply in alone] == [reply.text for reply in together]


def test_an_index_on_disk_answers_alike(bot, tmp_path):
    save_index(tmp_path / "index", bot.index, bot.encoder, bot.text, {})
    assert Responder.load(tmp_path / "index").respond_all(CONTEXTS, k=6) == bot.respond_all(CONTEXTS, k=6)


def test_more_replies_than_there_are(bot):
    replies = bot.respond(["hi"], k=100)
    assert sorted(reply.text for reply in replies) == sorted(TEXTS)
    assert isinstance(replies[0], Reply)


@pytest.mark.parametrize("context", [[], "hi there", ["hi", None], ()])
def test_what_is_no_context_is_refused(bot, context):
    with pytest.raises(ValueError, match="a context is a list of at least one utterance"):
        bot.respond(context)


def test_half_a_character_and_a_persona_in_one_string_are_refused(bot):
    with pytest.raises(ValueError, match="half of a character"):
        bot.respond(["hi \ud83d"])
    with pytest.raises(ValueError, match="half of a character"):
        bot.respond(["hi"], persona=["\udfff"])
    with pytest.raises(ValueError, match="persona is a list of lines"):
        bot.respond(["hi"], persona="i love dog")


def test_what_can_be_read_but_once_is_no_context(bot):
    for context in (iter(["hi"]), {"hi": 1}):
        with pytest.raises(ValueError, match="a context is a list"):
            bot.respond(context)
    with pytest.raises(ValueError, match="persona is a list of lines"):
        bot.respond(["hi"], persona=iter(["i have a dog"]))


@pytest.mark.parametrize("k", [1.5, "2", None, True])
def test_what_is_no_count_is_named(bot, k):
    with pytest.raises(ValueError, match=re.escape(f"k={k!r}: a whole number of at least 1")):
        bot.respond(["hi"], k)


def test_counts_out_of_range(bot):
    with pytest.raises(ValueError, match="k=0"):
        bot.respond(["hi"], k=0)
    assert bot.respond_all([]) == []


def test_persona_lines_reach_students_that_read_them(tiny_encoder_folder, bot):
    before = bot.respond(["hi"], k=6)
    assert bot.respond(["hi"], k=6, persona=["i love dog"]) == before  # this one was not trained with persona lines
    reader = Responder(bot.index, bot.encoder, StudentText(persona="own").bind(str(tiny_encoder_folder)))
    assert reader.respond(["hi"], k=6, persona=["i love dog"]) != before


def test_a_stopwatch_sees_every_stage_and_changes_nothing(bot):
    watch = Stopwatch()
    assert bot.respond(["hi"], k=6, stopwatch=watch) == bot.respond(["hi"], k=6)
    assert list(watch.seconds) == ["tokenise", "encode", "search"]
    assert min(watch.seconds.values()) > 0


def test_each_dialogue_has_its_own_persona(tiny_encoder_folder, bot):
    bot = Responder(bot.index, bot.encoder, StudentText(persona="own").bind(str(tiny_encoder_folder)))
    personas = [["i love dog"], [], ["i hate my job", "i have a cat"]]
    together = bot.respond_all([["hi"]] * 3, k=6, personas=personas)
    for replies, persona in zip(together, personas, strict=True):
        assert [reply.text for reply in replies] == [reply.text for reply in bot.respond(["hi"], 6, persona)]
    assert len({tuple(reply.score for reply in replies) for replies in together}) == 3
    with pytest.raises(ValueError, match="2 personas of 1 contexts"):
        bot.respond_all([["hi"]], personas=[[], []])


def test_a_poly_encoders_replies_are_proved_and_counted_unless_one_round_is_asked_for(bot):
    if isinstance(bot.encoder, BiEncoder):
        assert bot.codes is None
        return
    before = bot.codes
    proved = bot.respond_all(CONTEXTS, k=3)
    assert bot.respond_all(CONTEXTS, k=3, rules=ReplyRules(exact=False)) == proved  # a round reads more than six
    counted = bot.codes
    assert counted["proved"] - before["proved"] == counted["unproved"] - before["unproved"] == len(CONTEXTS)
    assert counted["screen"]["name"] == "float32"
