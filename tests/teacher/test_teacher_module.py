"""Fine-tuning: one batch is learnt, perplexity is exact, and what is exported scores as the teacher did."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning import LightningDataModule, Trainer
from tiny_models import FAMILIES
from torch.utils.data import DataLoader

from g2r_lightning.data.teacher_module import Named
from g2r_lightning.dialogue import Example
from g2r_lightning.errors import ConfigError, G2RError
from g2r_lightning.teacher import CausalTeacher, EncoderDecoderTeacher, TeacherModule
from g2r_lightning.teacher.exporting import TeacherExport
from g2r_lightning.teacher.module import rate_factor
from g2r_lightning.teacher.perplexity import TokenPerplexity


class Talks(LightningDataModule):
    """Examples in batches of a chosen size; two validation sets, one with a single example."""

    def __init__(self, module: TeacherModule, examples: list[Example], size: int = 3) -> None:
        super().__init__()
        self.module, self.examples, self.size = module, examples, size
        self.validation_names = ["all", "first"]

    def train_dataloader(self) -> Any:
        return DataLoader(self.examples, self.size, collate_fn=self.module.collate)  # type: ignore[arg-type]

    def val_dataloader(self) -> Any:
        sets = [self.examples, self.examples[:1]]
        return [DataLoader(part, self.size, collate_fn=self.module.collate) for part in sets]  # type: ignore[arg-type]

    test_dataloader = val_dataloader


def trainer(folder: Path, **settings: Any) -> Trainer:
    quiet: dict[str, Any] = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    return Trainer(accelerator="cpu", default_root_dir=folder, **{"enable_checkpointing": False, **quiet, **settings})


@pytest.mark.parametrize("family", FAMILIES)
def test_one_batch_is_learnt_and_exported(
    family: str, teacher_of: Callable[..., Any], examples: list[Example], tmp_path: Path
) -> None:
    module = TeacherModule(teacher_of(family), learning_rate=0.02, warmup_steps=2, schedule="constant")
    replies = [[example.response] for example in examples]
    before = module.teacher.log_likelihood(examples, replies)
    trainer(tmp_path, max_steps=25, limit_val_batches=0).fit(module, Talks(module, examples))
    after = module.teacher.log_likelihood(examples, replies)
    assert sum(row[0][0] for row in after) > sum(row[0][0] for row in before) * 0.6
    loaded = type(module.teacher)(str(tmp_path / "teacher"), dtype="float32")
    assert loaded.template.describe() == module.teacher.template.describe()
    again = loaded.log_likelihood(examples, replies)
    assert [row[0][0] for row in again] == pytest.approx([row[0][0] for row in after], abs=1e-4)
    assert loaded.describe()["weights_hash"] == module.teacher.describe()["weights_hash"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["teacher"]  # nothing half-written is left


@pytest.mark.parametrize("size", [1, 2, 3])
def test_perplexity_is_exact_at_any_batch_size(
    size: int, teacher_of: Callable[..., Any], examples: list[Example], tmp_path: Path
) -> None:
    module = TeacherModule(teacher_of("bert2bert"), label_smoothing=0.2)
    scores = [row[0] for row in module.teacher.log_likelihood(examples, [[e.response] for e in examples])]
    module.configure_model()
    [*_, logged] = trainer(tmp_path).validate(module, datamodule=Talks(module, examples, size), verbose=False)
    expected = math.exp(-sum(total for total, _ in scores) / sum(tokens for _, tokens in scores))
    assert logged["validation/all/perplexity"] == pytest.approx(expected, rel=1e-4)
    assert logged["validation/first/perplexity"] == pytest.approx(math.exp(-scores[0][0] / scores[0][1]), rel=1e-4)
    both = [*scores, scores[0]]
    assert logged["validation/perplexity"] == pytest.approx(
        math.exp(-sum(total for total, _ in both) / sum(tokens for _, tokens in both)), rel=1e-4
    )
    [*_, tested] = trainer(tmp_path).test(module, datamodule=Talks(module, examples, size), verbose=False)
    assert tested["test/0/perplexity"] == logged["validation/all/perplexity"]


def test_the_best_is_exported_not_the_last(
    teacher_of: Callable[..., Any], examples: list[Example], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = TeacherModule(teacher_of("gpt2"), learning_rate=0.0, warmup_steps=0, schedule="constant")
    perplexities = iter([9.0, 4.0, 7.0])
    monkeypatch.setattr(TokenPerplexity, "compute", lambda self: torch.tensor(value[0]))
    value = [0.0]
    exported: list[float] = []
    monkeypatch.setattr(TeacherModule, "export", lambda self, folder: exported.append(value[0]))
    monkeypatch.setattr(TeacherModule, "on_train_epoch_start", lambda self: value.__setitem__(0, next(perplexities)))
    fitting = trainer(tmp_path, max_epochs=3, num_sanity_val_steps=1)
    fitting.fit(module, Talks(module, examples))
    assert exported == [9.0, 4.0]
    [callback] = [found for found in fitting.callbacks if isinstance(found, TeacherExport)]  # type: ignore[attr-defined]
    other = TeacherExport()
    other.load_state_dict(callback.state_dict())
    assert other.best == 4.0


def test_broken_weights_stop_the_run(teacher_of: Callable[..., Any], examples: list[Example], tmp_path: Path) -> None:
    module = TeacherModule(teacher_of("gpt2"), learning_rate=1e30, warmup_steps=0, schedule="constant")
    with pytest.raises(G2RError, match=r"validation/perplexity is (nan|inf).*lower model\.init_args\.learning_rate"):
        trainer(tmp_path, max_epochs=1, num_sanity_val_steps=0).fit(module, Talks(module, examples))
    assert not (tmp_path / "teacher").exists()


def test_an_evaluation_that_is_no_number_names_its_examples(
    teacher_of: Callable[..., Any], examples: list[Example], tmp_path: Path
) -> None:
    module = TeacherModule(teacher_of("gpt2"))
    module.configure_model()
    strange, logits = examples[1].id, module.teacher.logits

    def one_is_broken(batch: dict[str, Any]) -> Any:
        assert not set(batch) & {"ids", "examples"}
        found = logits(batch)
        return found.masked_fill(torch.arange(len(found)).eq(1)[:, None, None], math.nan)

    module.teacher.logits = one_is_broken
    talks = Talks(module, examples)
    with pytest.raises(G2RError, match=r"validation/perplexity is nan.*not finite: unknown"):
        trainer(tmp_path).validate(module, datamodule=talks, verbose=False)
    module.collate = Named(module.collate)  # type: ignore[method-assign]
    with pytest.raises(G2RError, match=rf"test/perplexity is nan.*not finite: {re.escape(strange)}"):
        trainer(tmp_path).test(module, datamodule=talks, verbose=False)


def test_dropout_is_on_in_training_and_a_checkpoint_resumes(
    teacher_of: Callable[..., Any], examples: list[Example], tmp_path: Path
) -> None:
    module = TeacherModule(teacher_of("bart"), learning_rate=0.01, warmup_steps=1, export=False)
    modes: list[bool] = []
    original = module.training_step
    module.training_step = lambda *given: modes.append(module.model.training) or original(*given)  # type: ignore
    fitting = trainer(tmp_path, max_epochs=2)
    fitting.fit(module, Talks(module, examples, size=2))
    assert modes == [True] * 4
    assert not (tmp_path / "teacher").exists()
    assert set(fitting.callback_metrics) >= {"train/loss", "validation/perplexity", "train/tokens_per_second"}
    fitting.save_checkpoint(tmp_path / "x.ckpt")
    torch.manual_seed(7)
    fresh = TeacherModule(teacher_of("bart"), learning_rate=0.01, warmup_steps=1, export=False)
    trainer(tmp_path, max_epochs=3).fit(
        fresh, Talks(fresh, examples, size=2), ckpt_path=tmp_path / "x.ckpt", weights_only=True
    )
    assert fresh.trainer.global_step == 6
    reloaded = TeacherModule(teacher_of("bart"))
    trainer(tmp_path).validate(reloaded, Talks(reloaded, examples), ckpt_path=tmp_path / "x.ckpt", verbose=False)
    texts = [["yes"]] * 3
    assert reloaded.teacher.log_likelihood(examples, texts) == module.teacher.log_likelihood(examples, texts)


def test_decay_spares_vectors_and_frozen_weights_are_left_out(teacher_of: Callable[..., Any], tmp_path: Path) -> None:
    module = TeacherModule(teacher_of("gpt2"), weight_decay=0.3, schedule="constant")
    module.configure_model()
    module.model.transformer.wpe.weight.requires_grad_(False)
    groups = module.configure_optimizers()["optimizer"].param_groups
    assert [group["weight_decay"] for group in groups] == [0.3, 0.0]
    assert all(parameter.ndim > 1 for parameter in groups[0]["params"])
    names = {id(parameter): name for name, parameter in module.model.named_parameters()}
    held = {names[id(parameter)] for group in groups for parameter in group["params"]}
    assert held == set(names.values()) - {"transformer.wpe.weight"}


def test_rates() -> None:
    assert [rate_factor("constant", 2, 2)(step) for step in (0, 1, 2, 99)] == [0.0, 0.5, 1.0, 1.0]
    assert [rate_factor("linear", 2, 6)(step) for step in (2, 4, 6, 7)] == [1.0, 0.5, 0.0, 0.0]
    assert rate_factor("cosine", 2, 6)(4) == pytest.approx(0.5)
    assert rate_factor("cosine", 2, 6)(3) == pytest.approx((1 + math.cos(math.pi / 4)) / 2)
    assert rate_factor("linear", 0, 4)(0) == 1.0


def test_a_schedule_that_ends_needs_an_end(
    teacher_of: Callable[..., Any], examples: list[Example], tmp_path: Path
) -> None:
    module = TeacherModule(teacher_of("gpt2"), schedule="cosine")
    with pytest.raises(ConfigError, match=r"schedule=cosine needs an end: set trainer.max_steps or trainer.max_epochs"):
        trainer(tmp_path, max_epochs=-1, max_steps=-1).fit(module, Talks(module, examples))


def test_token_perplexity_weighs_tokens() -> None:
    metric = TokenPerplexity()
    metric.update(torch.tensor([-2.0, -4.0]), torch.tensor([1, 3]))
    metric.update(torch.tensor([-6.0]), torch.tensor([2]))
    assert metric.compute().item() == pytest.approx(math.exp(12 / 6))


def test_the_two_kinds_load_their_own_exports(
    teacher_of: Callable[..., Any], examples: list[Example], tmp_path: Path
) -> None:
    teacher_of("gpt2").save(tmp_path / "deep" / "gpt2")
    (tmp_path / "deep" / "gpt2" / "stale").write_text("x")
    teacher_of("gpt2").save(tmp_path / "deep" / "gpt2")
    assert not (tmp_path / "deep" / "gpt2" / "stale").exists()
    assert CausalTeacher(str(tmp_path / "deep" / "gpt2")).log_likelihood(examples[:1], [["yes"]])
    with pytest.raises(G2RError, match="holds no model that transformers can load"):
        EncoderDecoderTeacher(str(tmp_path / "deep" / "gpt2")).load()
