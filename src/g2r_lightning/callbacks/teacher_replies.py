"""What a teacher itself would answer where its students are tested, so that the same judges see both.

A student is measured by whom it retrieves; a teacher by whom it ranks first, and by what it writes. The replies stand
where a student's do, in ``examples/<stage>-<set>.parquet`` of the run, so that ``quality``, ``score --replies_of``,
``human export`` and ``report`` read them alike.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch.distributed as dist
from lightning.pytorch import LightningModule, Trainer

from g2r_lightning.callbacks.evaluation import TOGETHER
from g2r_lightning.callbacks.labelled import Labelled
from g2r_lightning.data.corpus import examples_of, examples_to_answer
from g2r_lightning.data.teacher_module import TeacherDataModule
from g2r_lightning.dialogue.types import GENERATED, Example
from g2r_lightning.errors import ConfigError
from g2r_lightning.metrics import reply_diversity
from g2r_lightning.paths import atomic_path
from g2r_lightning.progress import progress_bar
from g2r_lightning.teacher import Sampling, Teacher, TeacherModule

log = logging.getLogger(__name__)


class TeacherReplies(Labelled):
    """Have the teacher reply once to every context that it is tested on.

    Logs ``test/<set>/distinct_2``, ``distinct_3`` and ``mean_length`` (tokens) of the replies, with ``all`` for the
    sets together.

    Args:
        decoding: how a reply is drawn; one a context.
        seed: of the draws, which depend on the example's id and on it alone.
        contexts: file of contexts without a human response that are answered too, into
            ``predictions/<name of the contexts>.jsonl``; none by default.

    Raises:
        ConfigError: the decoding gives another number of replies than one.
    """

    def __init__(self, decoding: Sampling, seed: int = 0, contexts: str | None = None) -> None:
        super().__init__()
        if decoding.num_replies != 1:
            raise ConfigError(f"TeacherReplies: decoding.num_replies={decoding.num_replies}: one reply a context, 1")
        self.decoding = decoding
        self.seed = seed
        self.contexts = contexts
        self._tested: dict[int, list[str]] = {}
        self._asked: list[Example] = []

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Read the file of contexts: one that cannot be read is told before any training.

        Raises:
            DataError: it is missing, broken or empty.
        """
        if self.contexts is not None and stage != "validate":  # which replies to nobody
            self._asked = examples_to_answer(self.contexts)

    def on_test_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Refuse another model's run, and a decoding that the teacher cannot do, before it is tested."""
        _parts(trainer, pl_module)[0].check(self.decoding)
        self._tested = {}

    def on_test_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: dict[str, Any], batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:  # fmt: skip
        """Keep in mind who is tested: with ``limit_test_batches`` not everybody is."""
        self._tested.setdefault(dataloader_idx, []).extend(batch["ids"])

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Reply, log and write."""
        teacher, data = _parts(trainer, pl_module)
        names = data.test_names
        chosen = {
            names[number]: _those(examples_of(data.dialogues["test"][names[number]]), ids)
            for number, ids in sorted(self._tested.items())
        }
        own = [example for examples in chosen.values() for example in examples]
        extra = self._asked if self.label in (None, "test") else []
        share = extra[trainer.global_rank :: trainer.world_size]
        replies = iter(self._replies(trainer, teacher, [*own, *share]))
        found = {name: {example.id: next(replies) for example in examples} for name, examples in chosen.items()}
        answers = {example.id: next(replies) for example in share}
        if trainer.world_size > 1:
            found, answers = _joined(found, answers, names)
        figures = {
            f"{name}/{key}": value
            for name, texts_of in found.items()
            for key, value in reply_diversity(texts_of.values()).items()
        }
        texts = [text for own in found.values() for text in own.values()]
        figures |= {f"{TOGETHER}/{key}": value for key, value in reply_diversity(texts).items()}
        # every process has the same figures already; Lightning warns where it is not told to add up what it is given
        pl_module.log_dict({f"test/{key}": value for key, value in figures.items()}, sync_dist=True)
        if trainer.is_global_zero:
            folder = Path(trainer.default_root_dir)
            for name, texts_of in found.items():
                examples = _those(examples_of(data.dialogues["test"][name]), texts_of)
                write_examples(folder / "examples" / f"{self.label or 'test'}-{name}.parquet", examples, texts_of)
            blank = sum(not text.strip() for text in [*texts, *answers.values()])
            if blank:
                log.warning("%d of %d replies are blank", blank, len(texts) + len(answers))
            if self.contexts is not None and extra:
                write_answers(folder / "predictions" / f"{Path(self.contexts).stem}.jsonl", extra, answers)

    def _replies(self, trainer: Trainer, teacher: Teacher, examples: Sequence[Example]) -> list[str]:
        """Return a reply to each example; one may be empty."""
        with (
            progress_bar(
                total=len(examples), desc="replying", unit="context", disable=not trainer.is_global_zero, leave=False
            ) as bar,
            teacher.unwatched(),
            trainer.precision_plugin.forward_context(),
        ):
            teacher.progress = lambda contexts, replies, tokens: _advance(bar, contexts)  # noqa: ARG005
            written = teacher.generate(examples, self.decoding, self.seed)
        return [reply.text for (reply,) in written]


def write_examples(path: Path, examples: Sequence[Example], replies: dict[str, str]) -> None:
    """Write one row an example: context, human response, and the reply.

    Args:
        path: of the Parquet file.
        examples: of one set.
        replies: by the example's id.
    """
    columns = {
        "example_id": [e.id for e in examples],
        "dialogue_id": [e.dialogue_id for e in examples],
        "context": [list(e.context) for e in examples],
        "response": [e.response for e in examples],
        "reply": [replies[e.id] for e in examples],
        "reply_source": [GENERATED] * len(examples),
    }
    with atomic_path(path) as temporary:
        pq.write_table(pa.table(columns), temporary)


def write_answers(path: Path, examples: Sequence[Example], replies: dict[str, str]) -> None:
    """Write a line a context in the form of ``predict``, ``{"context", "replies": [{"text", "source"}]}``.

    A blank reply is none, and its context is left out: nobody could judge it.
    """
    lines = [
        {"context": list(e.context), "replies": [{"text": replies[e.id], "source": GENERATED}]}
        for e in examples
        if replies[e.id].strip()
    ]
    with atomic_path(path) as temporary:
        text = "".join(f"{json.dumps(line, ensure_ascii=False)}\n" for line in lines)
        temporary.write_text(text, encoding="utf-8")


def _parts(trainer: Trainer, pl_module: LightningModule) -> tuple[Teacher, TeacherDataModule]:
    data = getattr(trainer, "datamodule", None)
    if not isinstance(pl_module, TeacherModule) or not isinstance(data, TeacherDataModule):
        raise ConfigError(
            "TeacherReplies lets a g2r_lightning.teacher.TeacherModule reply to the sets of a "
            "g2r_lightning.data.TeacherDataModule; remove it from trainer.callbacks for other models"
        )
    return pl_module.teacher, data


def _those(examples: Sequence[Example], ids: Sequence[str] | dict[str, str]) -> list[Example]:
    wanted = set(ids)
    return [example for example in examples if example.id in wanted]


def _joined(
    found: dict[str, dict[str, str]], answers: dict[str, str], names: Sequence[str]
) -> tuple[dict[str, dict[str, str]], dict[str, str]]:
    """Return the replies of all processes, the sets in their order."""
    parts: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(parts, (found, answers))
    met = {name for own, _ in parts for name in own}  # a process may have met nobody of a small set
    merged = {
        name: {key: text for own, _ in parts for key, text in own.get(name, {}).items()}
        for name in names
        if name in met
    }
    return merged, {key: text for _, own in parts for key, text in own.items()}


def _advance(bar: Any, done: int) -> None:
    bar.update(done)
