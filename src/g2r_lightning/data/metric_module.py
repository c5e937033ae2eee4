"""What a learned metric is trained on: every response beside its corruptions, as a frozen encoder's vectors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Protocol, cast

from torch.utils.data import DataLoader

from g2r_lightning.data.corpus import examples_of
from g2r_lightning.data.corruptions import Corruption, RandomUtterance, WordDrop, WordOrder, WordRepeat
from g2r_lightning.data.judged_set import JudgedSet, TextRows, kinds_of
from g2r_lightning.data.modules import DialogueDataModule
from g2r_lightning.data.paraphrases import SurfaceParaphrase
from g2r_lightning.data.samplers import ResumableLoader
from g2r_lightning.data.vectors import TextReader, VectorTable, vector_table
from g2r_lightning.dialogue import Example
from g2r_lightning.dialogue.readers.base import DialogueReader
from g2r_lightning.errors import ConfigError
from g2r_lightning.progress import progress_bar


class MetricLike(Protocol):
    """What a metric's module tells its data module."""

    def utterances(self, example: Example) -> Sequence[str]:
        """Return the utterances of a context that the metric reads, oldest first."""

    def text_reader(self) -> TextReader:
        """Return the frozen encoder, on the device that it is to run on."""


class CorruptedDialogueDataModule(DialogueDataModule):
    """The dialogues of :class:`DialogueDataModule`, for ``fit`` of a metric without references.

    Args:
        train: readers of the training dialogues.
        corruptions: ways of making versions of a response; those of MaUdE (Sinha et al. 2020) unless told, with a
            rule-based paraphrase in the place of back-translation, and three random utterances, so that half of
            what is false is good language in the wrong place.
        evaluation_examples: most examples of an evaluation set that are scored, those with the lowest hashes of their
            ids; ``null`` scores all.
        validation: name -> reader of the dialogues that choose the checkpoint.
        test: name -> reader of the dialogues that are reported.
        validation_share: part of the training dialogues set aside as the validation set ``held_out``.
        test_share: the same for a test set.
        drop_leaks: drop training dialogues that stand in an evaluation set too.
        batch_size: contexts a step and process; each comes with all versions of its response.
        evaluation_batch_size: contexts a batch in evaluation; changes no result.
        num_workers: processes that make batches; changes no result.
        seed: of shuffles and of the training set's corruptions.
        evaluation_seed: of the evaluation sets' corruptions; keep it, so that metrics are tested alike.
        cache_dir: where vectors are kept, by content; safe to delete.
        train_share: part of the training dialogues that is used.
    """

    FEWEST_JUDGED: ClassVar[int] = 2

    def __init__(
        self,
        train: list[DialogueReader],
        corruptions: list[Corruption] | None = None,
        evaluation_examples: int | None = 2000,
        validation: dict[str, DialogueReader] | None = None,
        test: dict[str, DialogueReader] | None = None,
        validation_share: float = 0.0,
        test_share: float = 0.0,
        drop_leaks: bool = True,
        batch_size: int = 64,
        evaluation_batch_size: int = 64,
        num_workers: int = 0,
        seed: int = 0,
        evaluation_seed: int = 0,
        cache_dir: str = ".cache/g2r_lightning",
        train_share: float = 1.0,
    ) -> None:
        super().__init__(
            train, validation, test, validation_share, test_share, drop_leaks, batch_size=batch_size,
            evaluation_batch_size=evaluation_batch_size, num_workers=num_workers, seed=seed,
            evaluation_seed=evaluation_seed, cache_dir=cache_dir, train_share=train_share,
            evaluation_examples=evaluation_examples,
        )  # fmt: skip
        default = [SurfaceParaphrase(), WordDrop(), WordOrder(), WordRepeat(), RandomUtterance(3)]
        self.corruptions: list[Corruption] = default if corruptions is None else corruptions
        self.kinds = kinds_of(self.corruptions)
        self._made: dict[str, list[JudgedSet]] = {}
        self._texts: dict[str, TextRows] = {}
        self._tables: dict[str, VectorTable] = {}

    @property
    def training_set(self) -> JudgedSet:  # type: ignore[override]  # a step of a metric holds other things
        """The training set."""
        return self._sets("fit")[0]

    def evaluation_sets(self, stage: str) -> list[JudgedSet]:  # type: ignore[override]  # likewise
        """Return the named sets of ``validation`` or ``test``."""
        return self._sets("test") if stage == "test" else self._sets("fit")[1:]

    def prepare_data(self) -> None:
        """Encode what is missing, in one process; the others wait, and find it in the cache."""
        assert self.trainer is not None
        state = self.trainer.state.fn
        self.vectors("test" if state is not None and state.value == "test" else "fit", progress=True)

    def vectors(self, of: str, progress: bool = False) -> VectorTable:
        """Return the vectors of all texts of ``fit`` (training and validation sets) or of ``test``.

        Args:
            of: which.
            progress: show a bar while they are encoded.
        """
        if of not in self._tables:
            sets = self._sets(of)
            texts = self._texts[of].texts
            reader = self._module().text_reader()
            with progress_bar(total=len(texts), desc="encoding", unit="text", disable=not progress, leave=False) as bar:
                table = vector_table(self.cache_dir, reader, texts, _advancing(bar))
            for one in sets:
                one.vectors = table
            self._tables[of] = table
        return self._tables[of]

    def train_dataloader(self) -> ResumableLoader:
        """Return the loader of training steps, contexts of similar length together."""
        self.vectors("fit")
        return self.training_loader(self.training_set, self.training_set.lengths)

    def val_dataloader(self) -> list[DataLoader[Any]]:
        """Return one loader a validation set."""
        self.vectors("fit")
        return [self._batches(one) for one in self.evaluation_sets("validation")]

    def test_dataloader(self) -> list[DataLoader[Any]]:
        """Return one loader a test set.

        Raises:
            ConfigError: there is no test set.
        """
        if not self.dialogues["test"]:
            raise ConfigError("no test set: name one under data.init_args.test, or set data.init_args.test_share")
        self.vectors("test")
        return [self._batches(one) for one in self.evaluation_sets("test")]

    def _sets(self, of: str) -> list[JudgedSet]:
        """Return the sets whose texts are encoded together: training and validation sets for ``fit``, or ``test``.

        What people said is numbered first, so that other corruptions leave most of what was encoded as it is.
        """
        if of not in self._made:
            stage = "validation" if of == "fit" else of
            chosen = {name: self.judged(examples_of(dialogues)) for name, dialogues in self.dialogues[stage].items()}
            named = [("train", self.train_examples), *chosen.items()] if of == "fit" else [*chosen.items()]
            texts, utterances = TextRows(), self._module().utterances
            for _, examples in named:
                for example in examples:
                    for text in (*utterances(example), example.response):
                        texts.add(text)
            self._texts[of] = texts
            self._made[of] = [
                self._judged(name, examples, texts, training=of == "fit" and place == 0)
                for place, (name, examples) in enumerate(named)
            ]
        return self._made[of]

    def _judged(self, name: str, examples: list[Example], texts: TextRows, training: bool) -> JudgedSet:
        batches = None
        if not training:
            rank, world_size = self._share()
            size, count = self.evaluation_batch_size, len(examples)
            starts = range(rank * size, count, size * world_size)
            batches = [range(start, min(start + size, count)) for start in starts]
        seed = self.seed if training else self.evaluation_seed
        return JudgedSet(name, examples, self.corruptions, seed, self._module().utterances, texts, batches)

    def _batches(self, dataset: JudgedSet) -> DataLoader[Any]:
        return DataLoader(dataset, batch_size=None, num_workers=self.num_workers)

    def _module(self) -> MetricLike:
        module = None if self.trainer is None else self.trainer.lightning_module
        if not hasattr(module, "text_reader"):
            raise ConfigError(
                "g2r_lightning.data.metric_module.CorruptedDialogueDataModule needs a metric as the model: "
                "g2r_lightning.studies.unreferenced.UnreferencedModule"
            )
        return cast("MetricLike", module)


def _advancing(bar: Any) -> Callable[[int], None]:
    def advance(done: int) -> None:
        """Move the bar on."""
        bar.update(done)

    return advance
