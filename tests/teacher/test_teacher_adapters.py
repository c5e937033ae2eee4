"""LoRA: adapters alone are trained and kept, the exported folder is a plain model that says the same."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from test_teacher_module import Talks, trainer

from g2r_lightning.dialogue import Example
from g2r_lightning.errors import ConfigError, G2RError
from g2r_lightning.teacher import LoraSettings, TeacherModule
from g2r_lightning.teacher.adapters import add_adapters, is_adapter, merged_weights

SETTINGS = LoraSettings(rank=4, alpha=8.0)


def adapted(teacher: Any, **settings: Any) -> TeacherModule:
    options = {"lora": SETTINGS, "learning_rate": 0.05, "warmup_steps": 0, "schedule": "constant", **settings}
    return TeacherModule(teacher, **options)


@pytest.mark.parametrize("family", ["gpt2", "llama", "bart"])
def test_adapters_alone_are_trained_and_the_export_is_plain_and_the_same(
    family: str, teacher_of: Callable[..., Any], examples: list[Example], tmp_path: Path
) -> None:
    module = adapted(teacher_of(family))
    replies = [[example.response] for example in examples]
    plain = teacher_of(family)
    before = plain.log_likelihood(examples, replies)
    fitting = trainer(tmp_path, max_steps=20, limit_val_batches=0)
    fitting.fit(module, Talks(module, examples))
    after = module.teacher.log_likelihood(examples, replies)
    assert sum(row[0][0] for row in after) > sum(row[0][0] for row in before) + 1
    old, new = plain.model.state_dict(), module.model.state_dict()
    for name, value in old.items():
        name = name if name in new else f"{name.rpartition('.')[0]}.base_layer.{name.rpartition('.')[2]}"
        assert torch.equal(new[name], value)
    exported = type(plain)(str(tmp_path / "teacher"), dtype="float32")
    assert set(exported.model.state_dict()) == set(old)
    assert not any("adapter" in path.name for path in (tmp_path / "teacher").iterdir())
    module.model.eval()
    batch = module.collate(examples)
    with torch.no_grad():
        assert torch.allclose(exported.logits(batch), module.teacher.logits(batch), atol=1e-4)
        assert not torch.allclose(plain.logits(batch), module.teacher.logits(batch), atol=0.1)


def test_exporting_leaves_the_model_that_is_trained_alone(
    teacher_of: Callable[..., Any], examples: list[Example], tmp_path: Path
) -> None:
    torch.manual_seed(0)
    module = adapted(teacher_of("gpt2"))
    trainer(tmp_path, max_steps=3, limit_val_batches=0).fit(module, Talks(module, examples))
    before = {name: value.clone() for name, value in module.model.state_dict().items()}
    for name in ("a", "b"):
        module.export(tmp_path / name)
    assert all(torch.equal(value, before[name]) for name, value in module.model.state_dict().items())
    weights = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("a", "b")]
    assert weights[0] == weights[1]
    assert module.model.training


def test_a_checkpoint_holds_the_adapters_alone_and_goes_on(
    teacher_of: Callable[..., Any], examples: list[Example], tmp_path: Path
) -> None:
    torch.manual_seed(0)
    module = adapted(teacher_of("gpt2"), export=False)
    fitting = trainer(tmp_path, max_epochs=3, limit_val_batches=0)
    fitting.fit(module, Talks(module, examples))
    fitting.save_checkpoint(tmp_path / "x.ckpt")
    held = torch.load(tmp_path / "x.ckpt", weights_only=True)["state_dict"]
    assert held
    assert all(is_adapter(name) for name in held)
    fresh = adapted(teacher_of("gpt2"), export=False)
    trainer(tmp_path).validate(
        fresh, Talks(fresh, examples), ckpt_path=tmp_path / "x.ckpt", verbose=False, weights_only=True
    )
    replies = [[example.response] for example in examples]
    assert fresh.teacher.log_likelihood(examples, replies) == module.teacher.log_likelihood(examples, replies)
    resumed = adapted(teacher_of("gpt2"), export=False)
    going_on = trainer(tmp_path, max_epochs=5, limit_val_batches=0)
    going_on.fit(resumed, Talks(resumed, examples), ckpt_path=tmp_path / "x.ckpt", weights_only=True)
    assert going_on.global_step == 5
    other = adapted(teacher_of("gpt2"), lora=LoraSettings(target_modules=["c_proj"]))
    other.configure_model()
    with pytest.raises(G2RError, match=r"holds other adapters than model\.init_args\.lora asks for: model\."):
        other.load_state_dict(held)


def test_settings_reach_peft(teacher_of: Callable[..., Any]) -> None:
    module = adapted(teacher_of("gpt2"), lora=LoraSettings(rank=3, alpha=6.0, dropout=0.25, target_modules=["c_fc"]))
    module.configure_model()
    shapes = {name: tuple(value.shape) for name, value in module.named_parameters() if value.requires_grad}
    assert len(shapes) == 4  # A and B in two layers
    assert all("c_fc" in name and 3 in shape for name, shape in shapes.items())
    layer = module.model.transformer.h[0].mlp.c_fc
    assert layer.scaling == {"default": 2.0}
    assert layer.lora_dropout["default"].p == 0.25
    held = [p for group in module.configure_optimizers()["optimizer"].param_groups for p in group["params"]]
    assert len(held) == 4
    assert set(merged_weights(module.model)) == set(teacher_of("gpt2").model.state_dict())


def test_what_cannot_be_is_refused(
    teacher_of: Callable[..., Any], model_folder: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ConfigError, match=r"lora.target_modules=\['nothing'\] does not fit GPT2LMHeadModel"):
        add_adapters(teacher_of("gpt2").model, LoraSettings(target_modules=["nothing"]))
    with pytest.raises(ConfigError, match="names an embedding that is the output layer too"):
        add_adapters(teacher_of("gpt2").model, LoraSettings(target_modules=["wte", "c_attn"]))
    from g2r_lightning.teacher import EncoderDecoderTeacher

    halves = EncoderDecoderTeacher(encoder_name_or_path="a", decoder_name_or_path="b")
    with pytest.raises(ConfigError, match="cross-attention between two joined halves"):
        TeacherModule(halves, lora=SETTINGS)
    with pytest.raises(ConfigError, match="rank=0"):
        LoraSettings(rank=0)
    with pytest.raises(ConfigError, match="alpha=0"):
        LoraSettings(alpha=0.0)
    with pytest.raises(ConfigError, match=r"lora.target_modules=\(c_attn does not fit"):
        add_adapters(teacher_of("gpt2").model, LoraSettings(target_modules="(c_attn"))
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name == "peft" else find(name, *rest))
    with pytest.raises(ConfigError, match=r"pip install 'g2r-lightning\[lora\]'"):
        LoraSettings()


def test_lora_from_the_command_line(model_folder: Callable[[str], Path], tmp_path: Path) -> None:
    """From flags to an exported folder that its own manifest calls a plain GPT-2."""
    from g2r_lightning.cli import main
    from tiny import write_dialogues

    reader = "g2r_lightning.dialogue.readers.JsonlReader"
    for name in ("train", "val"):
        write_dialogues(tmp_path / f"{name}.jsonl", 8, 4, 0, name)
    (tmp_path / "x.yaml").write_text(f"""
run: {{name: first, root: "{tmp_path}/runs", test_untrained: true}}
data:
  class_path: g2r_lightning.data.TeacherDataModule
  init_args:
    train: [{{class_path: {reader}, init_args: {{path: "{tmp_path}/train.jsonl"}}}}]
    validation: {{val: {{class_path: {reader}, init_args: {{path: "{tmp_path}/val.jsonl"}}}}}}
    test: {{val: {{class_path: {reader}, init_args: {{path: "{tmp_path}/val.jsonl"}}}}}}
model:
  class_path: g2r_lightning.teacher.TeacherModule
  init_args:
    teacher:
      class_path: g2r_lightning.teacher.CausalTeacher
      init_args: {{name_or_path: "{model_folder("gpt2")}"}}
    lora: {{rank: 2, target_modules: [c_attn]}}
    gradient_checkpointing: true
    ranked_examples: 4
    warmup_steps: 0
trainer:
  accelerator: cpu
  precision: 32-true
  max_epochs: 2
  enable_progress_bar: false
  log_every_n_steps: 1
  num_sanity_val_steps: 0
  callbacks:
    - class_path: lightning.pytorch.callbacks.EarlyStopping
      init_args: {{monitor: validation/perplexity, mode: min}}
    - class_path: lightning.pytorch.callbacks.ModelCheckpoint
      init_args: {{monitor: validation/perplexity, mode: min}}
""")
    assert main(["fit", "-c", str(tmp_path / "x.yaml")]) == 0
    run = tmp_path / "runs" / "first"
    before, after, validated = (
        json.loads((run / "results" / f"{name}.json").read_text()) for name in ("untrained", "test", "validation")
    )
    assert {"val/perplexity", "all/perplexity", "val/hits_at_1_of_20_ll", "all/hits_at_1_of_20_mi"} <= set(after)
    assert before.keys() == after.keys() == validated.keys()
    assert after["all/perplexity"] < before["all/perplexity"]
    assert after["all/ranked_examples"] == 4
    record = json.loads((run / "record.json").read_text())
    assert record["status"] == "finished"
    assert record["validation_perplexity"] == pytest.approx(after["all/perplexity"], rel=1e-4)  # the same dialogues
    assert Path(record["teacher"]) == run / "teacher"
    assert json.loads((run / "teacher" / "config.json").read_text())["model_type"] == "gpt2"
    for file in (run / "checkpoints").iterdir():
        assert all(is_adapter(name) for name in torch.load(file, weights_only=True)["state_dict"])
    (run / "results" / "test.json").unlink()
    assert main(["test", "-c", str(run / "config.yaml")]) == 0  # from the checkpoint, adapters and all
    again = json.loads((run / "results" / "test.json").read_text())
    assert again["all/perplexity"] == pytest.approx(after["all/perplexity"], rel=1e-4)
