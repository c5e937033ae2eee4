"""What every export of a student begins with: the weights of a checkpoint, and real dialogues to measure them on."""

from __future__ import annotations

from g2r_lightning.configuration import ExperimentCLI
from g2r_lightning.data import DialogueDataModule
from g2r_lightning.data.corpus import examples_of
from g2r_lightning.data.evaluation_set import CandidateList, candidate_lists
from g2r_lightning.errors import ConfigError
from g2r_lightning.student import RetrievalStudent


def student_and_data(cli: ExperimentCLI, checkpoint: str | None) -> tuple[RetrievalStudent, DialogueDataModule]:
    """Return the student of a checkpoint (untrained without one) and its dialogues.

    Raises:
        ConfigError: the experiment is none of a student, or the checkpoint is another's.
    """
    data, student = cli.build("data", "model")
    if not isinstance(student, RetrievalStudent) or not isinstance(data, DialogueDataModule):
        raise ConfigError("`export --format` needs a g2r_lightning.student.RetrievalStudent and its dialogues")
    if checkpoint is not None:
        _take(student, checkpoint)
    data.prepare_for(student.text)
    return student, data


def lists_to_measure(data: DialogueDataModule, most: int) -> list[CandidateList]:
    """Return contexts of the validation sets with the candidate lists that evaluation ranks.

    Args:
        data: the experiment's.
        most: how many contexts, shared out over the sets.

    Raises:
        ConfigError: there is no validation set.
    """
    sets = [examples_of(data.dialogues["validation"][name]) for name in data.validation_names]
    if not any(sets):
        raise ConfigError(
            "this is measured on validation dialogues, and there are none: name a set under "
            "data.init_args.validation, or set data.init_args.validation_share"
        )
    share = -(-most // len(sets))
    return [one for some in sets for one in candidate_lists(some, data.evaluation_seed, data.choices, share)]


def _take(student: RetrievalStudent, checkpoint: str) -> None:
    import torch

    saved = torch.load(checkpoint, map_location="cpu", weights_only=True)
    student.on_load_checkpoint(saved)  # refuses another student's
    student.load_state_dict(saved["state_dict"])
