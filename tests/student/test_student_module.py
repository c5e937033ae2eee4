"""The Lightning shell of the student: what it logs, refuses and keeps beside its weights."""

from __future__ import annotations

import pytest
import torch

from g2r_lightning.data.batches import CandidateBatch
from g2r_lightning.errors import ConfigError
from g2r_lightning.losses import G2RLoss
from g2r_lightning.student import BiEncoder, PolyEncoder, RetrievalStudent, StudentText, load_student, save_student
from g2r_lightning.student.module import other_weights
from g2r_lightning.student.persistence import WEIGHTS, saved_weights_hash, weights_hash


@pytest.fixture
def student(tiny_encoder_folder, monkeypatch) -> RetrievalStudent:
    module = RetrievalStudent(BiEncoder(str(tiny_encoder_folder)), loss=G2RLoss(alpha=0.25))
    module.logged = {}
    monkeypatch.setattr(module, "log", lambda name, value, **_: module.logged.__setitem__(name, value.item()))
    return module


def batch(teacher: torch.Tensor | None) -> CandidateBatch:
    ids = torch.tensor([[2, 6, 7, 3], [2, 8, 3, 0], [2, 9, 3, 0], [2, 11, 12, 3]])
    positives = torch.tensor([[1, 1, 0, 0], [0, 1, 0, 0]], dtype=torch.bool)
    negatives = torch.tensor([[0, 0, 1, 1]] * 2, dtype=torch.bool)
    mask = (ids > 0).long()
    return CandidateBatch(ids[:2], mask[:2], ids, mask, positives, positives, negatives, teacher, torch.tensor([4, 7]))


def test_every_term_of_the_loss_is_logged(student):
    total = student.training_step(batch(torch.full((2, 4), -1.0)), 0)
    logged = student.logged
    assert set(logged) == {f"train/{n}" for n in ("loss", "cross_entropy", "score_transfer", "kl", "teacher_entropy")}
    assert total.item() == pytest.approx(0.75 * logged["train/cross_entropy"] + 0.25 * logged["train/score_transfer"])
    total.backward()
    assert all(p.grad is not None for p in student.parameters())  # none unused: DistributedDataParallel would stop


def test_without_scores_alpha_must_be_0(student):
    with pytest.raises(ConfigError, match=r"loss\.init_args\.alpha=0\.25 needs teacher scores"):
        student.training_step(batch(None), 0)
    student.loss = G2RLoss(alpha=0.0)
    assert torch.isfinite(student.training_step(batch(None), 0))
    assert set(student.logged) == {"train/loss", "train/cross_entropy"}


def test_what_a_score_means_is_kept_beside_the_weights(student, tiny_encoder_folder):
    checkpoint = {"state_dict": student.state_dict()}
    student.on_save_checkpoint(checkpoint)
    student.on_load_checkpoint(checkpoint)
    other = RetrievalStudent(BiEncoder(str(tiny_encoder_folder), normalise=True), StudentText(lower=True))
    with pytest.raises(ConfigError) as error:
        other.on_load_checkpoint(checkpoint)
    said = str(error.value)
    assert "model.init_args.encoder.init_args.normalise: the checkpoint has False, the configuration True" in said
    assert "model.init_args.text.init_args.lower: the checkpoint has False, the configuration True" in said
    assert "history" not in said


def test_other_weights_by_hand():
    here = {"a": torch.zeros(2), "b": torch.zeros(3)}
    assert other_weights(here, {"a": torch.ones(2), "b": torch.ones(3)}) == []
    assert (
        "b is (3,) in the checkpoint, (4,) here" in other_weights(here, {"a": torch.zeros(2), "b": torch.zeros(4)})[0]
    )
    assert "b is (3,) in the checkpoint, None here" in other_weights(here, {"a": torch.zeros(2)})[0]


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("kind", [BiEncoder, PolyEncoder])
def test_a_saved_student_scores_the_same(tiny_encoder_folder, tmp_path, kind, shared):
    torch.manual_seed(0)
    encoder = kind(str(tiny_encoder_folder), shared=shared, normalise=True, output_scale=4.5).eval()
    with torch.no_grad():
        for parameter in encoder.context_tower.parameters():
            parameter.add_(0.01 * torch.randn_like(parameter))
    text = StudentText(history=3, separator="|").bind(str(tiny_encoder_folder))
    save_student(encoder, text, tmp_path / "student")
    loaded, loaded_text = load_student(tmp_path / "student")
    one = batch(None)
    with torch.no_grad():
        assert torch.equal(loaded(*one[:4]), encoder(*one[:4]))
    assert not loaded.training
    assert (loaded.context_tower is loaded.response_tower) is shared
    assert loaded_text.fingerprint() == text.fingerprint()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_a_student_is_saved_in_float32_whatever_it_was_trained_in(tiny_encoder_folder, tmp_path, dtype):
    encoder = BiEncoder(str(tiny_encoder_folder)).to(dtype)
    text = StudentText().bind(str(tiny_encoder_folder))
    save_student(encoder, text, tmp_path / "student")
    assert {weight.dtype for weight in encoder.parameters()} == {dtype}
    save_student(encoder.float(), text, tmp_path / "float32")
    named = weights_hash(tmp_path / "student" / WEIGHTS)
    assert named == weights_hash(tmp_path / "float32" / WEIGHTS) == saved_weights_hash(encoder)


def test_a_student_begins_in_training_mode_and_a_text_fits_its_encoder(tiny_encoder_folder):
    encoder = BiEncoder(str(tiny_encoder_folder))
    assert all(module.training for module in encoder.modules())
    RetrievalStudent(encoder, StudentText(max_context_tokens=512))
    with pytest.raises(ConfigError, match=r"max_response_tokens=513: this encoder reads at most 512 tokens"):
        RetrievalStudent(encoder, StudentText(max_response_tokens=513))
