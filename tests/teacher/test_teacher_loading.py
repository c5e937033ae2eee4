"""Where teachers come from: halves, packages, folders that are not there."""

from __future__ import annotations

import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_models import bert_config, llama, word_pieces
from transformers import BertModel

from g2r_lightning.dialogue import Example
from g2r_lightning.errors import ConfigError, G2RError
from g2r_lightning.hub import missing_model, position_limit, resolve_model
from g2r_lightning.teacher import (
    BlenderBotSmallTemplate,
    BlenderBotTemplate,
    CausalTeacher,
    CausalTemplate,
    ChatTemplate,
    EncoderDecoderTeacher,
    EncoderDecoderTemplate,
    Sampling,
    base,
)


@pytest.fixture
def half(tmp_path: Path) -> str:
    """Folder of a bare encoder: no output layer, no cross-attention."""
    torch.manual_seed(0)
    tokenizer = word_pieces()
    BertModel(bert_config(len(tokenizer))).save_pretrained(tmp_path / "half")
    tokenizer.save_pretrained(tmp_path / "half")
    return str(tmp_path / "half")


def test_two_halves_become_one_model(half: str, examples: list[Example], tmp_path: Path) -> None:
    teacher = EncoderDecoderTeacher(encoder_name_or_path=half, decoder_name_or_path=half, dtype="float32")
    model = teacher.model
    writer = model.decoder
    assert writer.get_output_embeddings().weight is writer.get_input_embeddings().weight
    pretrained = BertModel.from_pretrained(half).state_dict()
    for name, value in model.encoder.state_dict().items():
        assert torch.equal(value, pretrained[name])
    held = writer.bert.state_dict()
    assert all(torch.equal(value, held[name]) for name, value in pretrained.items() if not name.startswith("pooler"))
    frozen = [name for name, parameter in model.named_parameters() if not parameter.requires_grad]
    assert frozen == ["encoder.pooler.dense.weight", "encoder.pooler.dense.bias"]
    scores = teacher.log_likelihood(examples, [["yes"], ["yes"], ["yes"]])
    assert len({round(row[0][0], 4) for row in scores}) == 3  # cross-attention lets the context through
    teacher.save(tmp_path / "whole")
    again = EncoderDecoderTeacher(str(tmp_path / "whole"), dtype="float32").log_likelihood(
        examples, [["yes"], ["yes"], ["yes"]]
    )
    assert [row[0][0] for row in again] == pytest.approx([row[0][0] for row in scores], abs=1e-5)


def test_the_decoder_half_cannot_see_ahead(half: str, examples: list[Example]) -> None:
    teacher = EncoderDecoderTeacher(encoder_name_or_path=half, decoder_name_or_path=half, dtype="float32")
    teacher.model.eval()
    batch = teacher.batch(examples[:1])
    with torch.no_grad():
        before = teacher.logits(batch)
        batch["decoder_input_ids"][0, -1] = 5
        after = teacher.logits(batch)
    assert torch.allclose(before[:, :-1], after[:, :-1], atol=1e-6)
    assert not torch.allclose(before[:, -1], after[:, -1], atol=1e-3)


def test_halves_need_one_vocabulary(half: str, model_folder: Callable[[str], Path]) -> None:
    teacher = EncoderDecoderTeacher(encoder_name_or_path=half, decoder_name_or_path=str(model_folder("gpt2")))
    with pytest.raises(ConfigError, match="different vocabularies"):
        teacher.load()


def test_a_package_brings_its_model(half: str, monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.ModuleType("carried_model")
    module.get_model_path = lambda: Path(half)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "carried_model", module)
    assert resolve_model("package:carried_model") == half
    name = "package:carried_model"
    assert EncoderDecoderTeacher(encoder_name_or_path=name, decoder_name_or_path=name).load().tokenizer.vocab_size
    monkeypatch.setitem(sys.modules, "empty_model", types.ModuleType("empty_model"))
    with pytest.raises(ConfigError, match=r"empty_model has no get_model_path"):
        resolve_model("package:empty_model")
    with pytest.raises(ConfigError, match=r"x\.y=package:no_such_model: .*; try: pip install no-such-model"):
        resolve_model("package:no_such_model", "x.y")


@pytest.mark.parametrize(
    "names", [{}, {"name_or_path": "a", "encoder_name_or_path": "b"}, {"decoder_name_or_path": "b"}]
)
def test_one_way_to_name_a_model(names: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match="give name_or_path"):
        EncoderDecoderTeacher(**names)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", [EncoderDecoderTeacher, CausalTeacher])
def test_a_missing_folder_names_setting_and_remedy(kind: Any) -> None:
    with pytest.raises(G2RError, match=r"teacher.init_args.name_or_path=./runs/none/teacher: no such folder; check"):
        kind(name_or_path="./runs/none/teacher").load()


def test_a_missing_half_names_its_setting(half: str) -> None:
    teacher = EncoderDecoderTeacher(encoder_name_or_path=half, decoder_name_or_path="./nowhere/at/all")
    with pytest.raises(G2RError, match=r"decoder_name_or_path=./nowhere/at/all: no such folder"):
        teacher.load()


def test_the_hub_switched_off_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert "unset HF_HUB_OFFLINE" in str(missing_model("some/model", "x", OSError("a\nb")))
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    assert "check name, revision and network" in str(missing_model("some/model", "x", OSError("a\nb")))


def test_a_package_is_not_loaded_before_it_is_needed() -> None:
    teacher = CausalTeacher("./nowhere/at/all", template=CausalTemplate())
    assert teacher.name_or_path == "./nowhere/at/all"


@pytest.mark.parametrize(
    ("family", "kind"),
    [
        ("bart", EncoderDecoderTemplate),
        ("t5", EncoderDecoderTemplate),
        ("blenderbot", BlenderBotTemplate),
        ("blenderbot_small", BlenderBotSmallTemplate),
        ("bert2bert", EncoderDecoderTemplate),
        ("gpt2", CausalTemplate),
        ("llama", CausalTemplate),
        ("llama_chat", ChatTemplate),
    ],
)
def test_the_convention_follows_from_the_model(family: str, kind: Any, teacher_of: Callable[..., Any]) -> None:
    template = teacher_of(family).template
    assert type(template) is kind
    if family == "bert2bert":
        assert template.max_context_tokens == 64  # as many positions as the model has


def test_a_template_beyond_the_models_positions_is_refused(teacher_of: Callable[..., Any]) -> None:
    teacher = teacher_of("bert2bert", template=EncoderDecoderTemplate(max_context_tokens=65, max_response_tokens=20))
    with pytest.raises(ConfigError, match=r"reads at most 64 tokens, the template may give 65"):
        teacher.load()
    with pytest.raises(ConfigError, match=r"reads at most 64 tokens"):
        teacher.load()  # asked again, it refuses again
    teacher = teacher_of("gpt2", template=CausalTemplate(max_context_tokens=200, max_response_tokens=58))
    with pytest.raises(ConfigError, match=r"reads at most 256 tokens, the template may give 257"):
        teacher.load()
    longest = teacher_of("gpt2", template=CausalTemplate(max_context_tokens=200, max_response_tokens=57))
    long = Example("t:l:1", ("music " * 300,), "cat " * 300)
    assert longest.log_likelihood([long], [[long.response]])[0][0][1] == 57


def test_t5_knows_no_limit(teacher_of: Callable[..., Any]) -> None:
    assert position_limit(teacher_of("t5").model.config) is None


def test_asking_in_the_midst_of_training_leaves_the_weights_trainable(
    teacher_of: Callable[..., Any], examples: list[Example]
) -> None:
    teacher = teacher_of("bart")
    quiet = teacher.log_likelihood(examples[:1], [["yes"]])
    teacher.model.train()
    assert teacher.log_likelihood(examples[:1], [["yes"]]) == quiet  # no dropout
    assert teacher.model.training
    teacher.logits(teacher.batch(examples)).sum().backward()


def test_a_hash_of_weights_changes_with_them(teacher_of: Callable[..., Any]) -> None:
    teacher = teacher_of("gpt2")
    before = teacher.describe()
    assert before == teacher_of("gpt2").describe()
    with torch.no_grad():
        teacher.model.transformer.ln_f.bias[0] += 1
    assert teacher.describe()["weights_hash"] != before["weights_hash"]


@pytest.mark.parametrize(("able", "chosen"), [(True, torch.bfloat16), (False, torch.float32)])
def test_auto_is_bfloat16_where_the_processor_is_good_at_it(
    able: bool, chosen: torch.dtype, teacher_of: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(base, "cpu_multiplies_bf16", lambda: able)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    teacher = teacher_of("gpt2", dtype="auto")
    assert teacher.model.dtype == chosen
    assert teacher.describe()["dtype"] == str(chosen).removeprefix("torch.")


def test_bfloat16_weights_hash_and_score(teacher_of: Callable[..., Any], examples: list[Example]) -> None:
    full, half_precision = teacher_of("gpt2"), teacher_of("gpt2", dtype="bfloat16")
    assert half_precision.describe()["dtype"] == "bfloat16"
    assert len(str(half_precision.describe()["weights_hash"])) == 64
    [[(coarse, tokens)]] = half_precision.log_likelihood(examples[:1], [["yes"]])
    [[(fine, _)]] = full.log_likelihood(examples[:1], [["yes"]])
    assert coarse == pytest.approx(fine, abs=0.2 * tokens)


def test_a_tokenizer_without_padding_pads_with_its_end(tmp_path: Path, examples: list[Example]) -> None:
    model, tokenizer = llama(tmp_path)
    model.save_pretrained(tmp_path / "m")
    tokenizer.save_pretrained(tmp_path / "m")
    teacher = CausalTeacher(str(tmp_path / "m"))
    assert teacher.tokenizer.pad_token_id == teacher.template.end
    assert (teacher.batch(examples)["labels"] == teacher.template.end).sum() == 3


@pytest.mark.parametrize(("family", "most"), [("bert2bert", 64), ("bart", 127), ("blenderbot", 128)])
@pytest.mark.parametrize("method", ["sample", "beam"])
def test_the_longest_reply_that_is_allowed_can_be_written(
    family: str, most: int, method: Any, teacher_of: Callable[..., Any], examples: list[Example]
) -> None:
    teacher = teacher_of(family)
    settings: dict[str, Any] = {"num_replies": 1, "num_beams": 2, "method": method}
    longest = Sampling(**settings, min_tokens=most - 1, max_tokens=most)
    teacher.check(longest)
    assert teacher.generate(examples[:1], longest)[0][0].num_tokens == most
    with pytest.raises(ConfigError, match=f"sampling.max_tokens={most + 1}"):
        teacher.check(Sampling(**settings, max_tokens=most + 1))


@pytest.mark.parametrize("setting", ["rows_per_batch", "tokens_per_forward"])
def test_a_batch_holds_something(setting: str, teacher_of: Callable[..., Any]) -> None:
    with pytest.raises(ConfigError, match=f"{setting}=0: use 1 or more"):
        teacher_of("gpt2", **{setting: 0})


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json", "config.json", "g2r_template.json"])
def test_a_file_of_a_saved_teacher_that_changed_is_named(
    teacher_of: Callable[..., Any], tmp_path: Path, name: str
) -> None:
    """A changed weight would be another opinion, in every score that is made with it."""
    teacher_of("gpt2").save(tmp_path / "saved")
    CausalTeacher(str(tmp_path / "saved")).load()
    content = bytearray((tmp_path / "saved" / name).read_bytes())
    content[-9] ^= 4
    (tmp_path / "saved" / name).write_bytes(content)
    with pytest.raises(G2RError, match=rf"saved/{name}: changed since it was written; restore.*delete g2r_files"):
        CausalTeacher(str(tmp_path / "saved")).load()
    (tmp_path / "saved/g2r_files.json").unlink()
    if name == "model.safetensors":  # on purpose, then
        CausalTeacher(str(tmp_path / "saved")).load()


@pytest.mark.parametrize(
    "told",
    ["{}", '{"files": null}', '{"files": ["a"]}', '{"files": {"config.json": 3}}', '{"files": {"config.json": {}}}',
     '{"files": {"a\\u0000b": {}}}', '{"files": {"\\ud800": {}}}', '{"files": {"../x": {}}}', "[1]", "no json"],
)  # fmt: skip
def test_checksums_that_are_none_are_refused_with_their_place(
    teacher_of: Callable[..., Any], tmp_path: Path, told: str
) -> None:
    teacher_of("gpt2").save(tmp_path / "saved")
    (tmp_path / "saved/g2r_files.json").write_text(told)
    with pytest.raises(G2RError, match="saved"):
        CausalTeacher(str(tmp_path / "saved")).load()


def test_a_tokenizer_with_templates_in_a_folder_of_their_own_is_saved(
    teacher_of: Callable[..., Any], tmp_path: Path
) -> None:
    teacher = teacher_of("gpt2")
    teacher.tokenizer.chat_template = {"default": "{{ messages }}", "tool_use": "{{ tools }}"}
    teacher.save(tmp_path / "saved")
    assert list((tmp_path / "saved").glob("additional_chat_templates/*"))
    small = CausalTemplate(max_context_tokens=64, max_response_tokens=32)
    CausalTeacher(str(tmp_path / "saved"), template=small).load()
