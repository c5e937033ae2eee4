"""What a teacher answers where it is tested: one reply a context, kept where a student's are, by any processes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from test_teacher_ranking import data_in, quiet

from g2r_lightning.callbacks import TeacherFigures, TeacherReplies
from g2r_lightning.data.corpus import examples_of
from g2r_lightning.errors import ConfigError, G2RError
from g2r_lightning.metrics import reply_diversity
from g2r_lightning.runs import RunFolder
from g2r_lightning.studies.replies import read_answers, read_run
from g2r_lightning.summary import print_summary
from g2r_lightning.teacher import Sampling, TeacherModule
from g2r_lightning.teacher.generator import WrittenText

DECODING = Sampling(num_replies=1, max_tokens=6)


def run_test(
    teacher: Any, folder: Path, replies: TeacherReplies, data: dict[str, Any] | None = None, **settings: Any
) -> dict[str, float]:
    """Test in a folder; return what was logged."""
    module = TeacherModule(teacher, ranked_examples=0)
    trainer = quiet(folder, callbacks=[replies, TeacherFigures()], **settings)
    [logged] = trainer.test(module, data_in(folder, **(data or {})), verbose=False)
    return dict(logged)


@pytest.mark.parametrize("family", ["gpt2", "bart"])
def test_replies_are_those_of_generate_and_stand_where_a_students_do(
    family: str, teacher_of: Callable[..., Any], tmp_path: Path
) -> None:
    contexts = tmp_path / "asked.jsonl"
    contexts.write_text('["hi there"]\n["do you like dogs?", "yes", "why?"]\n')
    logged = run_test(teacher_of(family), tmp_path, TeacherReplies(DECODING, 3, str(contexts)))
    examples = examples_of(data_in(tmp_path).dialogues["test"]["one"])
    expected = [reply.text for (reply,) in teacher_of(family).generate(examples, DECODING, 3)]
    [found] = read_run(tmp_path)
    assert found.name == "one"
    assert found.example_ids == [example.id for example in examples]
    assert [one.replies[0] for one in found.replies] == expected
    assert [one.replies[0] for one in found.human] == [example.response for example in examples]
    assert {one.sources for one in found.replies} == {("generated",)}
    told = reply_diversity(expected)
    for name in ("one", "all"):
        assert {key: logged[f"test/{name}/{key}"] for key in told} == pytest.approx(told)
    results = json.loads((tmp_path / "results/test.json").read_text())
    assert results["one/distinct_2"] == pytest.approx(told["distinct_2"])
    [answers] = read_answers(tmp_path).values()
    assert [one.context for one in answers] == [("hi there",), ("do you like dogs?", "yes", "why?")]
    assert len({one.replies for one in answers}) == 2


def test_who_was_not_tested_gets_no_reply(teacher_of: Callable[..., Any], tmp_path: Path) -> None:
    contexts = tmp_path / "asked.jsonl"
    contexts.write_text('["hi"]\n')
    replies = TeacherReplies(DECODING, contexts=str(contexts))
    replies.label = "test-other"
    run_test(teacher_of("gpt2"), tmp_path, replies, {"evaluation_examples": 12}, limit_test_batches=2)
    [found] = read_run(tmp_path, "test-other")
    assert len(set(found.example_ids)) == len(found.example_ids) == 10  # two batches of five
    assert not (tmp_path / "predictions").exists()


def test_a_blank_reply_is_told_and_is_no_answer(
    teacher_of: Callable[..., Any], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    contexts = tmp_path / "asked.jsonl"
    contexts.write_text('["hi there"]\n["silence"]\n')
    teacher = teacher_of("gpt2")

    def generate(examples: Any, *_: Any) -> list[list[WrittenText]]:
        return [[WrittenText(" " if "silence" in one.context else "yes")] for one in examples]

    teacher.generate = generate
    run_test(teacher, tmp_path, TeacherReplies(DECODING, 0, str(contexts)))
    assert "1 of 26 replies are blank" in caplog.text
    [answers] = read_answers(tmp_path).values()
    assert [one.context for one in answers] == [("hi there",)]


def test_contexts_that_are_not_there_are_told_before_training(teacher_of: Callable[..., Any], tmp_path: Path) -> None:
    replies = TeacherReplies(DECODING, contexts=str(tmp_path / "missing.jsonl"))
    trainer = quiet(tmp_path, callbacks=[replies], max_steps=1)
    with pytest.raises(G2RError, match=r"missing\.jsonl"):
        trainer.fit(TeacherModule(teacher_of("gpt2"), ranked_examples=0), data_in(tmp_path))
    assert trainer.global_step == 0


def test_a_summary_shows_how_replies_changed(
    teacher_of: Callable[..., Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for label, seed in (("untrained", 1), ("test", 2)):
        replies, figures = TeacherReplies(DECODING, seed), TeacherFigures()
        replies.label = figures.label = label
        module = TeacherModule(teacher_of("gpt2"), ranked_examples=0)
        quiet(tmp_path, callbacks=[replies, figures]).test(module, data_in(tmp_path), verbose=False)
    print_summary(RunFolder(tmp_path))
    said = capsys.readouterr().out
    assert "untrained:" in said
    assert "distinct" in said or "Dist" in said


def test_two_processes_write_what_one_does(teacher_of: Callable[..., Any], tmp_path: Path) -> None:
    contexts = tmp_path / "asked.jsonl"
    contexts.write_text("".join(f'["question {number}"]\n' for number in range(5)))
    for name, settings in {"alone": {}, "two": {"strategy": "ddp_fork", "devices": 2}}.items():
        (tmp_path / name).mkdir()
        run_test(teacher_of("gpt2"), tmp_path / name, TeacherReplies(DECODING, 0, str(contexts)), **settings)
    alone, two = ([*read_run(tmp_path / name), read_answers(tmp_path / name)] for name in ("alone", "two"))
    assert alone == two
    results = [json.loads((tmp_path / name / "results/test.json").read_text()) for name in ("alone", "two")]
    assert results[0]["all/distinct_3"] == pytest.approx(results[1]["all/distinct_3"])


def test_what_cannot_be_is_refused_before_anything_is_tested(teacher_of: Callable[..., Any], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"decoding\.num_replies=5: one reply a context"):
        TeacherReplies(Sampling())
    with pytest.raises(ConfigError, match="max_tokens=999"):
        run_test(teacher_of("gpt2"), tmp_path, TeacherReplies(Sampling(num_replies=1, max_tokens=999)))
    data = data_in(tmp_path)
    data.__class__ = data.__class__.__mro__[1]  # a student's
    trainer = quiet(tmp_path, callbacks=[callback := TeacherReplies(DECODING)])
    trainer.datamodule = data  # type: ignore[attr-defined]
    with pytest.raises(ConfigError, match=r"remove it from trainer\.callbacks"):
        callback.on_test_epoch_start(trainer, TeacherModule(teacher_of("gpt2")))
    assert not (tmp_path / "results").exists()
