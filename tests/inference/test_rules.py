"""What a Responder may answer under rules, against a plain reading of the rules over all replies."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from g2r_lightning.dialogue.text import normalised
from g2r_lightning.errors import ConfigError, G2RError
from g2r_lightning.index import ResponseIndex, encode_rows
from g2r_lightning.index.conditions import Condition, ConditionError
from g2r_lightning.index.overlay import LiveIndex
from g2r_lightning.inference import ReplyRules, Responder
from g2r_lightning.inference.ruled import RuledIndex
from g2r_lightning.student import BiEncoder, StudentText

TEXTS = ["yes .", "no , never .", "i love pizza", "hello , how are you ?", "what a sad movie !", "Yes !", "good dog"]
SOURCES = ["original", "generated", *["approved"] * 3, "generated", "original"]
TAGS = [["short"], [], ["food"], None, ["sad", "film"], ["short"], []]


@pytest.fixture(scope="module")
def bot(tiny_encoder_folder) -> Responder:
    torch.manual_seed(0)
    encoder = BiEncoder(str(tiny_encoder_folder)).eval()
    text = StudentText(max_context_tokens=24).bind(str(tiny_encoder_folder))
    rows = [np.array(ids, np.int32) for ids in text.encode_responses(TEXTS)]
    vectors = encode_rows(encoder.encode_responses, rows, text.pad_id, torch.device("cpu")).numpy()
    table = pa.table({"tags": TAGS, "year": [1, 2, None, 4, 5, 6, 7]})
    return Responder(ResponseIndex(TEXTS, SOURCES, vectors, metadata=table), encoder, text)


def texts(replies):
    return [reply.text for reply in replies]


def test_replies_tell_their_row_and_metadata(bot):
    for reply in bot.respond(["hi"], 7):
        assert TEXTS[reply.row] == reply.text
        known = {"tags": TAGS[reply.row], "year": [1, 2, None, 4, 5, 6, 7][reply.row]}
        assert reply.metadata == {name: value for name, value in known.items() if value is not None}
        assert isinstance(hash(reply), int)


def test_conditions_and_block_lists_leave_the_others_in_their_order(bot, tmp_path):
    ranked = texts(bot.respond(["hi"], 7))
    for rules, kept in {
        ReplyRules(where="source = generated"): {"no , never .", "Yes !"},
        ReplyRules(where="tags has short or year >= 5"): {"yes .", "Yes !", "what a sad movie !", "good dog"},
        ReplyRules(block=["YES"]): set(TEXTS) - {"yes .", "Yes !"},
        ReplyRules(block_patterns=["o$|pizza"]): set(TEXTS) - {"i love pizza"},
        ReplyRules(where="source = original", block=["yes"]): {"good dog"},
        ReplyRules(where="source = nobody"): set(),
    }.items():
        expected = [text for text in ranked if text in kept]
        assert texts(bot.respond(["hi"], 7, rules=rules)) == expected
        assert texts(bot.respond(["hi"], 2, rules=rules)) == expected[:2]
        assert RuledIndex(bot.index).count(rules) == len(kept)
    (tmp_path / "block").write_text("Yes\n/dog/\n")
    listed = ReplyRules(block_file=str(tmp_path / "block"))
    assert set(texts(bot.respond(["hi"], 7, rules=listed))) == set(TEXTS) - {"yes .", "Yes !", "good dog"}


def test_a_rule_for_one_call_leaves_the_others(bot):
    strict = Responder(bot.index, bot.encoder, bot.text, ReplyRules(where="source = approved", no_repeat=1))
    assert len(strict.respond(["i love pizza !"], 7)) == 2
    assert len(strict.respond(["i love pizza !"], 7, no_repeat=0)) == 3
    assert len(strict.respond(["i love pizza !"], 7, where="")) == 6
    assert len(strict.respond(["i love pizza !"], 7, rules=ReplyRules())) == 7
    assert strict.respond(["hi"], threshold=1e9) == []
    with pytest.raises(ConditionError, match="no column 'sauce'"):
        Responder(bot.index, bot.encoder, bot.text, ReplyRules(where="sauce = approved"))
    with pytest.raises(ConfigError, match="not calibrated"):
        Responder(bot.index, bot.encoder, bot.text, ReplyRules(threshold="calibrated"))
    ready = Responder(bot.index, bot.encoder, bot.text, ReplyRules(threshold="calibrated"), calibrated=1e9)
    assert ready.respond(["hi"]) == []
    assert len(ready.respond(["hi"], threshold=float("-inf"))) == 1


def test_a_batch_heeds_each_dialogues_own_turns(bot):
    contexts = [["yes", "no never"], ["good dog"], ["hi", "good dog", "what", "now"]]
    together = bot.respond_all(contexts, 7, no_repeat=2)
    assert [len(own) for own in together] == [4, 6, 7]
    assert "good dog" not in texts(together[1])
    for context, own in zip(contexts, together, strict=True):
        assert texts(bot.respond(context, 7, no_repeat=2)) == texts(own)


RULES = st.builds(
    ReplyRules,
    where=st.sampled_from([None, "tags has a", "not tags has a", "source = x"]),
    no_repeat=st.integers(0, 3),
    threshold=st.sampled_from([None, -1.0, 0.0, 2.0]),
)


@settings(max_examples=80, deadline=None)
@given(RULES, st.integers(1, 14), st.lists(st.lists(st.integers(0, 3), min_size=1, max_size=3), min_size=1, max_size=3),
       st.integers(0, 1000), st.booleans())  # fmt: skip
def test_what_is_found_is_what_a_plain_reading_of_the_rules_finds(rules, k, said, seed, changed):
    """Texts repeat but for punctuation, so that one turn rules out several and more has to be fetched."""
    draw = np.random.default_rng(seed)
    own = [f"t{number % 4}" + "!" * (number // 4) for number in range(12)]
    tags, sources = [["a"] if draw.random() < 0.5 else [] for _ in own], [str(draw.choice(["x", "y"])) for _ in own]
    vectors = draw.integers(-2, 3, (12, 2)).astype(np.float32)
    table = pa.table({"text": own, "source": sources, "tags": pa.array(tags, pa.list_(pa.string()))})
    index = ResponseIndex(own[:8], sources[:8], vectors[:8], metadata=table.slice(0, 8).select(["tags"]))
    index.faiss_index = None  # which has an order of its own among equal scores
    live = LiveIndex(index, table.slice(8), vectors[8:], np.array([1, 9])) if changed else index
    contexts = [[f"t{number}." for number in turns] for turns in said]
    encoded = torch.from_numpy(draw.integers(-1, 2, (len(said), 2)).astype(np.float32))
    found = RuledIndex(live).search(encoded, contexts, k, lambda c, r: c @ r.T, rules)
    holds = {
        None: lambda row: True, "tags has a": lambda row: bool(tags[row]), "not tags has a": lambda row: not tags[row],
        "source = x": lambda row: sources[row] == "x",
    }[rules.where]  # fmt: skip
    for context, query, hits in zip(contexts, encoded.tolist(), found, strict=True):
        recent = {normalised(turn) for turn in context[-rules.no_repeat :]} if rules.no_repeat else set()
        score = [query[0] * a + query[1] * b for a, b in vectors.tolist()]
        rows = [row for row in range(12 if changed else 8) if not (changed and row in (1, 9))]
        allowed = [
            row for row in rows
            if holds(row) and normalised(own[row]) not in recent
            and (rules.threshold is None or score[row] >= rules.threshold)
        ]  # fmt: skip
        assert [(hit.score, hit.row) for hit in hits] == [
            (score[row], row) for row in sorted(allowed, key=lambda row: (-score[row], row))[:k]
        ]


def test_diversity_chooses_among_the_pool(bot):
    best = bot.respond(["hi"], 7)
    varied = bot.respond(["hi"], 3, diversity=1.0)
    assert varied[0] == best[0]
    assert len(set(texts(varied))) == 3
    narrow = ReplyRules(diversity=1.0, pool=3)
    assert set(texts(bot.respond(["hi"], 3, rules=narrow))) == set(texts(best[:3]))
    assert bot.respond(["hi"], 3, rules=ReplyRules(diversity=0.5, threshold=1e9)) == []
    assert texts(bot.respond(["hi"], 7, diversity=1e-9)) == texts(best)


@pytest.mark.parametrize(
    ("setting", "value", "match"),
    [
        ("no_repeat", -1, "a whole number of turns"), ("no_repeat", 1.5, "whole number"), ("no_repeat", True, "whole"),
        ("diversity", 2, "a number from 0"), ("diversity", "x", "a number from 0"), ("pool", 0, "at least 1"),
        ("threshold", "low", "'calibrated', or null"), ("threshold", float("nan"), "a score"),
        ("where", 3, "a condition, as text"), ("where", "a =", "expected a value"), ("block", "yes", "a list of texts"),
    ],
)  # fmt: skip
def test_rules_out_of_range(setting, value, match):
    with pytest.raises(ValueError, match=match):
        ReplyRules(**{setting: value})


def test_a_request_may_narrow_the_rules_and_not_widen_them():
    own = ReplyRules(where="source = original", block=("x",), no_repeat=2)
    wished = own.asked({"where": "tags has a or tags has b", "diversity": 0.5, "threshold": 1})
    assert wished.where == "(source = original) and (tags has a or tags has b)"
    assert own.asked({"no_repeat": 0}).no_repeat == 2
    assert own.asked({"no_repeat": 5}).no_repeat == 5
    assert (wished.block, wished.no_repeat, wished.diversity, wished.threshold) == (("x",), 2, 0.5, 1)
    assert own.asked({"where": ""}).where == own.asked({"where": None}).where == own.asked({}).where == own.where
    assert ReplyRules().asked({"where": "a = b"}).where == "a = b"
    for wishes, match in {
        "treshold": "no such rule; did you mean 'threshold'", "block_file": "not for requests; a request may set where",
    }.items():  # fmt: skip
        with pytest.raises(ValueError, match=match):
            own.asked({wishes: 1})
    with pytest.raises(ValueError, match="no_repeat=-1"):
        own.asked({"no_repeat": -1})


def test_masks_are_made_once_and_few_are_kept(bot, monkeypatch):
    ruled, made = RuledIndex(bot.index), []
    original = Condition.mask
    monkeypatch.setattr(Condition, "mask", lambda *given: made.append(1) or original(*given))
    for _ in range(3):
        ruled.keep(ReplyRules(where="source = original", no_repeat=1, diversity=0.1))
        ruled.keep(ReplyRules(where="source = original", threshold=2.0))
    assert len(made) == 1
    for number in range(100):
        ruled.keep(ReplyRules(where=f"year = {number}"))
    assert len(ruled._masks) <= 32


def test_a_block_file_that_was_changed_is_read_again(bot, tmp_path):
    listed = tmp_path / "never.txt"
    listed.write_text("yes\n")
    rules = ReplyRules(block_file=str(listed))
    first = RuledIndex(bot.index)
    assert first.count(rules) == len(TEXTS) - 2
    listed.write_text("yes\ngood dog\n")
    assert RuledIndex(bot.index).count(rules) == len(TEXTS) - 3
    assert first.count(rules) == len(TEXTS) - 2  # masks are kept


def test_in_memory_there_is_nothing_to_reload(bot):
    assert not bot.outdated
    with pytest.raises(G2RError, match="made in memory"):
        bot.reload()
