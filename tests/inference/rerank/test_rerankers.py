"""Every kind of second stage against a plain loop over pairs, with tiny random models of every family."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from g2r_lightning.dialogue import Example
from g2r_lightning.errors import ConfigError, G2RError
from g2r_lightning.index import ResponseIndex, encode_rows, save_index
from g2r_lightning.inference import Responder
from g2r_lightning.inference.rerank import CrossEncoderReranker, PolyReranker, Reranker, TeacherReranker
from g2r_lightning.inference.rerank.base import Remembered
from g2r_lightning.inference.stopwatch import Stopwatch
from g2r_lightning.student import BiEncoder, PolyEncoder, StudentText
from g2r_lightning.teacher import EndpointTeacher, Prior
from g2r_lightning.teacher.batching import token_log_likelihoods
from tiny_rerank import CLASSIFIERS, write_classifier

sys.path.insert(0, str(Path(__file__).parents[2] / "teacher"))
from tiny_models import ENCODER_DECODERS, FAMILIES, MAKERS

TEXTS = [
    "yes .",
    "no , never .",
    "i love pizza",
    "hello , how are you ?",
    "what a sad movie !",
    "good dog",
    "why not ?",
]
CONTEXTS = [["hi"], ["do you like pizza ?", "yes !", "why ?"], ["a good dog", "what is it ?"]]
EXAMPLES = [Example(f"t:{place}:0", tuple(lines), "") for place, lines in enumerate(CONTEXTS)]


@pytest.fixture(autouse=True)
def _one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def folders(tmp_path_factory, tiny_encoder_folder) -> Path:
    """A folder with the index of a bi-encoder (``bi``) and that of a poly-encoder over some of its texts (``poly``)."""
    root = tmp_path_factory.mktemp("two stages")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        name = str(tiny_encoder_folder)
        for place, encoder, texts in (("bi", BiEncoder(name), TEXTS), ("poly", PolyEncoder(name, codes=4), TEXTS[2:])):
            text = StudentText(max_context_tokens=24).bind(name)
            rows = [np.array(ids, np.int32) for ids in text.encode_responses(texts)]
            made = encode_rows(encoder.eval().encode_responses, rows, text.pad_id, torch.device("cpu")).numpy()
            save_index(root / place, ResponseIndex(texts, ["original"] * len(texts), made), encoder, text, {})
    return root


def model(root: Path, family: str) -> Path:
    """Return the folder of a tiny generator, made at its first use."""
    folder = root / family
    if not (folder / "config.json").exists():
        with torch.random.fork_rng():
            torch.manual_seed(0)
            made, tokenizer = MAKERS[family](folder)
        made.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
    return folder


def teacher(root: Path, family: str) -> Any:
    from g2r_lightning.teacher import CausalTeacher, EncoderDecoderTeacher

    kind = EncoderDecoderTeacher if family in ENCODER_DECODERS else CausalTeacher
    return kind(name_or_path=str(model(root, family)), dtype="float32")


# -- plain loops: one pair at a time, by the libraries' own ways


@torch.no_grad()
def poly_score(folder: Path, example: Example, reply: str) -> float:
    from g2r_lightning.student.persistence import load_student

    encoder, text = load_student(folder / "student")
    (ids,), (own,) = text.encode_contexts([text.context_lines(example)]), text.encode_responses([reply])
    tensors = [torch.tensor([ids]), torch.ones(1, len(ids)).long(), torch.tensor([own]), torch.ones(1, len(own)).long()]
    return float(encoder(*tensors))


@torch.no_grad()
def classifier_score(folder: Path, context: str, reply: str) -> float:
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    made = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    made.config.pad_token_id = 0
    return float(made(**tokenizer(context, reply, return_tensors="pt")).logits)


@torch.no_grad()
def likelihood(scorer: Any, example: Example, reply: str) -> tuple[float, int]:
    batch = scorer.batch([Example(example.id, example.context, reply)])
    total, count = token_log_likelihoods(scorer.logits(batch), batch["labels"])
    return float(total), int(count)


def test_a_poly_encoder_ranks_as_pair_by_pair(folders):
    plain = [[poly_score(folders / "poly", example, text) for text in TEXTS] for example in EXAMPLES]
    for place in ("poly", "poly/student"):  # two of the texts are not in its index; the student alone has none
        found = PolyReranker(str(folders / place), n=7).score(EXAMPLES, [TEXTS] * 3)
        np.testing.assert_allclose(found, plain, atol=1e-4)


@pytest.mark.parametrize("family", CLASSIFIERS)
def test_a_cross_encoder_ranks_as_pair_by_pair(tmp_path, family):
    folder = write_classifier(tmp_path / family, family)
    reranker = CrossEncoderReranker(str(folder), separator=" ! ", max_response_tokens=16, token_budget=40)
    plain = [[classifier_score(folder, " ! ".join(lines), text) for text in TEXTS] for lines in CONTEXTS]
    np.testing.assert_allclose(reranker.score(EXAMPLES, [TEXTS] * 3), plain, atol=1e-5)


def test_a_pair_that_is_too_long_keeps_the_end_of_its_context_and_the_beginning_of_its_reply(tmp_path):
    folder = write_classifier(tmp_path / "bert", positions=24)
    reranker = CrossEncoderReranker(str(folder), max_tokens=20, max_response_tokens=6, lower=True)
    example = Example("t:a:0", (" ".join(["dog"] * 50), "a Cat is in the garden , why ?"), "")
    found = reranker.score([example], [["i love pizza and music and the new movie", "yes"]])[0]
    long = classifier_score(folder, "dog dog a cat is in the garden , why ?", "i love pizza and music and")
    short = classifier_score(folder, "dog dog dog dog dog dog dog a cat is in the garden , why ?", "yes")
    np.testing.assert_allclose(found, [long, short], atol=1e-5)
    marked = reranker.score([example], [["[SEP] yes", "[SEP] [SEP] [SEP]"]])[0]
    assert marked[0] != found[1]  # what a user writes is text, whatever it looks like


@pytest.mark.parametrize("family", FAMILIES)
def test_a_teacher_ranks_as_pair_by_pair(folders, tmp_path, family):
    scorer = teacher(folders, family)
    plain = np.array([[likelihood(scorer, example, text) for text in TEXTS] for example in EXAMPLES])
    sums, counts = plain[..., 0], plain[..., 1]
    np.testing.assert_allclose(TeacherReranker(scorer).score(EXAMPLES, [TEXTS] * 3), sums / counts, atol=1e-4)
    contexts = tmp_path / "contexts.jsonl"
    contexts.write_text("\n".join(map(json.dumps, CONTEXTS)))
    pool = tuple(Example(f"prior:{place}:0", tuple(lines), "") for place, lines in enumerate(CONTEXTS))
    for prior, estimator in {"empty": Prior(), "contexts:3": Prior(pool)}.items():
        alone = np.array([estimator.log_likelihood(scorer, [text])[0] for text in TEXTS])
        for normalise in (True, False):
            reranker = TeacherReranker(
                scorer, score="mi", prior=prior, normalise=normalise, contexts=str(contexts), keep=3
            )
            own = sums / counts - alone[:, 0] / alone[:, 1] if normalise else sums - alone[:, 0]
            np.testing.assert_allclose(reranker.score(EXAMPLES, [TEXTS] * 3), own, atol=1e-3)


# -- behind a Responder


def of_kind(kind: str, folders: Path, n: int = 7) -> Reranker:
    if kind == "poly":
        return PolyReranker(str(folders / "poly"), n=n)
    if kind == "cross":
        if not (folders / "cross").exists():
            write_classifier(folders / "cross", positions=96)
        return CrossEncoderReranker(str(folders / "cross"), n=n, max_response_tokens=16)
    return TeacherReranker(teacher(folders, "bart"), n=n, score="mi")


@pytest.mark.parametrize("kind", ["poly", "cross", "teacher"])
def test_among_the_whole_set_the_second_stage_ranks_alone_and_a_batch_as_each_request(folders, kind):
    reranker = of_kind(kind, folders)
    bot, first = Responder.load(folders / "bi", rerank=reranker), Responder.load(folders / "bi")
    together = bot.respond_all(CONTEXTS, k=7)
    alone = np.array(reranker.score(EXAMPLES, [TEXTS] * 3))
    for context, scores, replies in zip(CONTEXTS, alone, together, strict=True):
        assert [reply.text for reply in replies] == [TEXTS[place] for place in np.argsort(-scores)]
        np.testing.assert_allclose([reply.rerank_score for reply in replies], np.sort(scores)[::-1], atol=1e-4)
        known = {reply.text: reply.score for reply in first.respond(context, 7)}
        assert {reply.text: pytest.approx(reply.score, abs=1e-4) for reply in replies} == known
        watch = Stopwatch()
        single = bot.respond(context, 7, stopwatch=watch)
        assert [reply.text for reply in single] == [reply.text for reply in replies]
        assert list(watch.seconds) == ["tokenise", "encode", "search", "rerank"]
        assert min(watch.seconds.values()) > 0


def test_of_a_larger_set_the_students_n_best_are_ranked(folders):
    bot, first = Responder.load(folders / "bi", rerank=of_kind("poly", folders, 3)), Responder.load(folders / "bi")
    for context in CONTEXTS:
        assert {one.text for one in bot.respond(context, 3)} == {one.text for one in first.respond(context, 3)}
        assert bot.respond(context, 1) == bot.respond(context, 3)[:1]
    assert all(one.rerank_score is None for one in first.respond(["hi"], 3))
    assert bot.respond(["hi"], threshold=1e9) == []  # nothing is left to be ranked


# -- what is told


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda root: PolyReranker("nowhere"), "rerank.init_args.folder=nowhere: no such folder; name the index of"),
        (lambda root: PolyReranker(str(root)), "no student in it"),
        (lambda root: PolyReranker(str(root / "bi")), "its student is a BiEncoder"),
        (lambda root: CrossEncoderReranker("./nowhere"), "rerank.init_args.name_or_path=./nowhere: no such folder"),
        (lambda root: CrossEncoderReranker(str(write_classifier(root / "nli", labels=3))), "3 logits"),
        (lambda root: CrossEncoderReranker(str(model(root, "bart"))), "logits, and a ranking has one"),
        (lambda root: CrossEncoderReranker(str(root / "cross"), max_tokens=500), "max_tokens=500.*at most 96"),
        (
            lambda root: CrossEncoderReranker(str(root / "cross"), max_response_tokens=93),
            "leaves no room for a context",
        ),
        (lambda root: CrossEncoderReranker(str(root / "cross"), device="warp"), "rerank.init_args.device=warp"),
        (lambda root: TeacherReranker(), "TeacherReranker needs a teacher"),
        (lambda root: TeacherReranker(teacher(root, "gpt2"), score="mi", prior="some"), "rerank.init_args.prior=some"),
    ],
)
def test_what_cannot_rank_is_told_by_its_key(folders, make, message):
    of_kind("cross", folders).load()
    with pytest.raises(G2RError, match=message):
        make(folders).load()


def test_a_headless_encoder_and_a_generator_of_the_other_family_are_no_classifier_and_no_teacher(folders, tmp_path):
    from transformers import AutoModel

    folder = write_classifier(tmp_path / "headless")
    settings = (folder / "config.json").read_text()
    AutoModel.from_pretrained(folder).save_pretrained(folder)
    (folder / "config.json").write_text(settings)
    with pytest.raises(ConfigError, match=r"lacks \d weights of a BertForSequenceClassification, the first classifier"):
        CrossEncoderReranker(str(folder)).load()
    from g2r_lightning.teacher import EncoderDecoderTeacher

    with pytest.raises(G2RError, match="gpt2"):
        TeacherReranker(EncoderDecoderTeacher(str(model(folders, "gpt2")))).load()


def test_settings_out_of_range_and_what_writes_only(folders, tmp_path):
    for settings, message in {
        (("n", 0),): "rerank.init_args.n=0", (("keep", 0),): "rerank.init_args.keep=0",
        (("score", "mi"), ("prior", "none")): "mi needs one",
        (("score", "mi"), ("prior", "contexts:2")): "name the contexts to draw from",
    }.items():  # fmt: skip
        with pytest.raises(ConfigError, match=message):
            TeacherReranker(**dict(settings))
    one = tmp_path / "one.jsonl"
    one.write_text('["hi"]\n')
    few = TeacherReranker(teacher(folders, "bart"), score="mi", prior="contexts:2", contexts=str(one))
    with pytest.raises(ConfigError, match=r"rerank.init_args.prior=contexts:2: there are only 1"):
        few.load()
    endpoint = EndpointTeacher("http://127.0.0.1:9/v1", "gpt")
    with pytest.raises(ConfigError, match="writes replies but tells no likelihoods"):
        TeacherReranker(endpoint).load()
    bot = Responder.load(folders / "bi", rerank=of_kind("poly", folders, 3))
    with pytest.raises(ValueError, match=r"k=4: the second stage ranks rerank.init_args.n=3 replies") as raised:
        bot.respond(["hi"], 4)
    assert isinstance(raised.value, ConfigError)


def test_what_is_remembered_is_bounded_and_made_once():
    made: list[str] = []
    known = Remembered(lambda texts: made.extend(texts) or [len(text) for text in texts], most=2)
    assert known(["a", "bb", "a"]) == [1, 2, 1]
    assert known(["bb", "ccc"]) == [2, 3]
    assert known(["a"]) == [1]
    assert (made, len(known)) == (["a", "bb", "ccc", "a"], 2)
    assert known(list("abcdef")) == [1] * 6
    assert len(known) == 2
