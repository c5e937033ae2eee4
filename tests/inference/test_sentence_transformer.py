"""A student's folder for sentence-transformers: its vectors by that library alone, whatever the student is like."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("sentence_transformers", reason="needs the extra `sentence-transformers`")

from g2r_lightning.data.evaluation_set import CandidateList
from g2r_lightning.data.tokens import pad
from g2r_lightning.dialogue import Example
from g2r_lightning.errors import G2RError
from g2r_lightning.inference.sentence_transformer import export_sentence_transformer, joined
from g2r_lightning.student import BiEncoder, PolyEncoder, StudentText
from tiny import WORDS, write_encoder

# sentence-transformers 6.2 and what it imports (scipy, sklearn, accelerate) warn of each other
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")

LONG = " ".join(WORDS[:40])
CONTEXTS = [["hi"], ["hi ?", "do you like pizza ?", "yes !"], [LONG, "ok", LONG], ["a CAT .", "a Dog ?"]]
RESPONSES = ["yes .", "I love PIZZA", LONG, "what [SEP] is this ?", "hello , how are you ?"]
LISTS = [CandidateList(Example(f"t:{i}:1", tuple(own), ""), RESPONSES) for i, own in enumerate(CONTEXTS)]


@pytest.fixture(scope="module")
def one_layer(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(write_encoder(tmp_path_factory.mktemp("encoder"), WORDS, layers=1))


def exported(folder: Path, encoder, text):
    from sentence_transformers import SentenceTransformer

    manifest = export_sentence_transformer(folder, encoder.eval(), text, LISTS, "# a card\n", {"run": "tiny"})
    return SentenceTransformer(str(folder), device="cpu"), manifest


@torch.no_grad()
def own_vectors(encode, rows, pad_id: int) -> np.ndarray:
    ids, mask = pad([np.asarray(row, np.int32) for row in rows], pad_id)
    return encode(ids, mask).numpy()


def two_towers(name: str, **settings) -> BiEncoder:
    encoder = BiEncoder(name, shared=False, **settings)
    with torch.no_grad():
        encoder.context_tower.model.embeddings.word_embeddings.weight.mul_(1.5)
    return encoder


KINDS = {
    "one tower": (lambda name: BiEncoder(name), {}),
    "two towers": (lambda name: two_towers(name, normalise=True, output_scale=4.5), {}),
    "cls, scaled": (lambda name: BiEncoder(name, pooling="cls", output_scale=0.06), {"history": 2, "lower": True}),
}


@pytest.mark.parametrize("kind", KINDS)
def test_the_library_gives_the_students_vectors(kind, one_layer, tmp_path):
    torch.manual_seed(0)
    make, settings = KINDS[kind]
    encoder = make(one_layer)
    text = StudentText(max_context_tokens=24, max_response_tokens=12, **settings).bind(one_layer)
    model, manifest = exported(tmp_path / "out", encoder, text)
    contexts = [text.context_lines(one.example) for one in LISTS]
    ours = own_vectors(encoder.encode_contexts, text.encode_contexts(contexts), text.pad_id)
    theirs = model.encode_query([joined(text, lines) for lines in contexts])
    np.testing.assert_allclose(theirs, ours, atol=1e-5)
    replies = own_vectors(encoder.encode_responses, text.encode_responses(RESPONSES), text.pad_id)
    np.testing.assert_allclose(model.encode(RESPONSES), replies, atol=1e-5)
    np.testing.assert_allclose(model.encode_document(RESPONSES), replies, atol=1e-5)
    np.testing.assert_allclose(model.similarity(theirs, replies), ours @ replies.T, atol=1e-3)
    assert max(manifest["quality"]["contexts"], manifest["quality"]["responses"]) <= 1e-5
    files = {str(path.relative_to(tmp_path / "out")) for path in (tmp_path / "out").rglob("*") if path.is_file()}
    assert set(manifest["files"]) == files - {"manifest.json"}
    assert json.loads((tmp_path / "out/manifest.json").read_text())["run"] == "tiny"
    assert (tmp_path / "out/README.md").read_text() == "# a card\n"
    assert not any(path.suffix in (".bin", ".pt", ".pkl") for path in (tmp_path / "out").rglob("*"))


def test_a_poly_encoders_responses_are_encoded_and_its_contexts_refused(one_layer, tmp_path):
    torch.manual_seed(0)
    encoder = PolyEncoder(one_layer, codes=4, normalise=True, output_scale=3.0)
    text = StudentText(max_context_tokens=24, max_response_tokens=12).bind(one_layer)
    model, manifest = exported(tmp_path / "out", encoder, text)
    replies = own_vectors(encoder.encode_responses, text.encode_responses(RESPONSES), text.pad_id)
    np.testing.assert_allclose(model.encode(RESPONSES), replies, atol=1e-5)
    assert "contexts" not in manifest["quality"]
    with pytest.raises(ValueError, match="No route found for task type 'query'"):
        model.encode_query(["hi"])


def test_a_student_whose_contexts_cannot_be_one_string_is_refused(one_layer, tmp_path):
    torch.manual_seed(0)
    text = StudentText(separator="a").bind(one_layer)  # "yes !" + "a" + "hi": one unknown word to this tokenizer
    with pytest.raises(G2RError, match=r"other vectors than the student \(contexts by .*separator 'a'"):
        exported(tmp_path / "out", BiEncoder(one_layer), text)
    assert not (tmp_path / "out").exists()
