"""A folder that sentence-transformers fitted and saved is an encoder here, with the pooling it was fitted with."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from g2r_lightning.data.tokens import pad
from g2r_lightning.student import BiEncoder, StudentText
from tiny import WORDS, write_encoder


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")
@pytest.mark.parametrize("pooling", ["cls", "mean"])
def test_vectors_are_those_of_sentence_transformers(tmp_path, pooling):
    from sentence_transformers import SentenceTransformer
    from sentence_transformers import models as modules

    transformer = modules.Transformer(str(write_encoder(tmp_path / "bert", WORDS)))
    pool = modules.Pooling(transformer.get_word_embedding_dimension(), pooling_mode=pooling)
    fitted = SentenceTransformer(modules=[transformer, pool], device="cpu")
    fitted.save(str(tmp_path / "fitted"))
    texts = ["hi how are you ?", "i love my dog", "pizza"]
    student = BiEncoder(str(tmp_path / "fitted")).eval()
    text = StudentText().bind(str(tmp_path / "fitted"))
    ids, mask = pad([np.asarray(row, np.int32) for row in text.encode_responses(texts)], text.pad_id)
    with torch.no_grad():
        ours = student.encode_responses(ids, mask).numpy()
    assert student.response_tower.pooling == pooling
    assert np.abs(ours - fitted.encode(texts)).max() < 1e-5
