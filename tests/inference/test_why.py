"""Tracing a reply to the contexts it was written for, beside a search by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from g2r_lightning.data.training_set import ScoredCandidate
from g2r_lightning.dialogue import Example
from g2r_lightning.errors import G2RError
from g2r_lightning.inference.chat import Asked
from g2r_lightning.inference.contexts import fits, load_contexts, save_contexts
from g2r_lightning.inference.responder import Reply
from g2r_lightning.inference.why import TeacherView, explain
from g2r_lightning.student import BiEncoder, PolyEncoder, StudentText

DIALOGUES = [
    ("hi ! how are you ?", "good , and you ?"),
    ("do you like pizza ?", "i love pizza ."),
    ("what food do you like ?", "i love pizza ."),
    ("how is the new movie ?", "it is sad ."),
    ("i have a dog and a cat", "nice , how old ?"),
]
PIZZA = Reply("i  love pizza .", 3.0, "original")  # spaced otherwise: one text to the student


@pytest.fixture(params=["bi", "poly", "first"])
def student(request, tiny_encoder_folder):
    torch.manual_seed(0)
    name = str(tiny_encoder_folder)
    encoder = {
        "bi": lambda: BiEncoder(name),
        "poly": lambda: PolyEncoder(name, codes=4),
        "first": lambda: PolyEncoder(name, codes=40, code_type="first"),  # more codes than a context has tokens
    }[request.param]().eval()
    return encoder, StudentText(history=2, max_context_tokens=24).bind(name)


def known():
    """Every response beside a generated one; the teacher scored them, but for those of the dog."""
    for number, (said, response) in enumerate(DIALOGUES):
        scores = (math.nan, math.nan) if "dog" in said else (-1.0 - number, -2.0 - number)
        candidates = [ScoredCandidate(response, "original", scores[0]), ScoredCandidate("yes .", "teacher", scores[1])]
        yield Example(f"tiny:{number}:1", ("earlier", "ok", said), response), candidates


@pytest.fixture
def folder(student, tmp_path):
    facts = {"student": "me", "teacher_score": "log-likelihood a token"}
    save_contexts(tmp_path / "why", known(), *student, most=3, facts=facts)
    return tmp_path / "why"


@torch.no_grad()
def by_hand(student, lines: list[str]) -> torch.Tensor:
    """Return the unit vector of one context: alone, unpadded, a poly-encoder's codes averaged."""
    encoder, text = student
    (ids,) = text.encode_contexts([lines])
    vector = encoder.encode_contexts(torch.tensor([ids]), torch.ones(1, len(ids)).long())[0]
    if vector.ndim == 2:
        vector = torch.stack([code for code in vector if bool((code != 0).any())]).mean(dim=0)
    return vector / vector.norm()


def test_a_reply_is_found_where_it_was_a_candidate_and_the_nearest_come_first(student, folder):
    asked = Asked(("hello", "which food do you like ?"), (), PIZZA)
    found = explain(asked, load_contexts(folder), *student, count=5)
    assert found.occurrences == 2
    assert {one.lines[-1] for one in found.written_for} == {DIALOGUES[1][0], DIALOGUES[2][0]}
    assert all((one.response, one.source) == ("i love pizza .", "original") for one in found.written_for)
    live = by_hand(student, list(asked.context))
    for one in (*found.written_for, *found.nearest):
        assert one.similarity == pytest.approx(float(live @ by_hand(student, list(one.lines))), abs=1e-5)
        number = int(one.example_id.split(":")[1])
        assert one.lines == ("ok", DIALOGUES[number][0])  # as the student reads it: the last two
    for some in (found.written_for, found.nearest):
        assert [one.similarity for one in some] == sorted((one.similarity for one in some), reverse=True)
    assert (found.compared, found.known, len(found.nearest)) == (3, 5, 3)
    assert {one.response for one in found.nearest} <= {response for _, response in DIALOGUES}


def test_the_teacher_is_quoted_where_it_scored_the_reply_in_this_context(student, folder):
    contexts = load_contexts(folder)
    here = Asked(("something else", "ok", DIALOGUES[2][0]), (), PIZZA)  # the student reads the last two lines
    assert explain(here, contexts, *student).teacher == TeacherView(-3.0, "log-likelihood a token")
    elsewhere = Asked(("ok", "what pizza ?"), (), PIZZA)
    assert explain(elsewhere, contexts, *student).teacher is None
    unscored = Asked(("ok", DIALOGUES[4][0]), (), Reply("yes .", 1.0, "teacher"))
    found = explain(unscored, contexts, *student, count=9)
    assert found.teacher is None
    assert [one.teacher_score for one in found.written_for if "dog" in one.lines[-1]] == [None]
    assert sorted(one.teacher_score for one in found.written_for if one.teacher_score is not None) == [-5, -4, -3, -2]


def test_a_teacher_at_hand_scores_what_its_set_lacks(student, folder):
    class Teacher:
        def log_likelihood(self, contexts, candidates):
            assert (contexts[0].context, contexts[0].persona) == (("what pizza ?",), ("i sail .",))
            assert candidates == [[PIZZA.text]]
            return [[(-6.0, 4)]]

    contexts = load_contexts(folder)
    asked = Asked(("what pizza ?",), ("i sail .",), PIZZA)
    found = explain(asked, contexts, *student, teacher=Teacher(), teacher_name="small")
    assert found.teacher == TeacherView(-1.5, "log-likelihood a token, by small now")


def test_a_reply_of_nobody(student, folder):
    found = explain(Asked(("hi",), (), Reply("never .", 0.0, "approved")), load_contexts(folder), *student)
    assert (found.occurrences, found.written_for, len(found.nearest)) == (0, (), 3)


def test_which_folders_serve_again(student, folder, tmp_path):
    assert fits(folder, "me", 3)
    assert fits(folder, "me", 2)
    assert not fits(folder, "me", 4)
    assert not fits(folder, "another student", 3)
    assert not fits(tmp_path / "nothing", "me", 1)
    save_contexts(folder, known(), *student, most=100, facts={"student": "me"})
    assert fits(folder, "me", 1000)  # every context there is has a vector
    vectors = load_contexts(folder).vectors
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)


def test_a_damaged_folder_says_what_to_do(student, folder, tmp_path):
    (folder / "candidates.parquet").write_bytes(b"PAR1")
    with pytest.raises(G2RError, match=r"candidates.parquet: not as it was written; delete .*why"):
        load_contexts(folder)
    with pytest.raises(G2RError, match="no training examples"):
        save_contexts(tmp_path / "empty", [], *student, most=3, facts={})
    assert not (tmp_path / "empty").exists()
