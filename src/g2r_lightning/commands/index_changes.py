"""``index add``, ``remove``, ``compact`` and ``calibrate``: change an index that is there, without a build."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from g2r_lightning.commands.export_source import lists_to_measure
from g2r_lightning.configuration import ExperimentCLI
from g2r_lightning.data import DialogueDataModule
from g2r_lightning.dialogue.text import half_character, printable
from g2r_lightning.errors import ConfigError
from g2r_lightning.index import ResponseStream
from g2r_lightning.index.abstention import Criterion, calibrate_abstention, score_contexts, store_abstention
from g2r_lightning.index.block_list import BlockedResponses, read_block_list
from g2r_lightning.index.columns import as_table
from g2r_lightning.index.compaction import compact
from g2r_lightning.index.conditions import parse_condition
from g2r_lightning.index.edit import add_responses, remove_responses, rows_of
from g2r_lightning.index.folder import load_indexed_student, read_manifest
from g2r_lightning.index.metadata import repeated
from g2r_lightning.index.overlay import LiveIndex, load_live
from g2r_lightning.paths import resolve_path
from g2r_lightning.runs import RunFolder
from g2r_lightning.sections import AddSettings, CalibrateSettings, RemoveSettings

log = logging.getLogger(__name__)


def change(verb: str, arguments: Sequence[str]) -> None:
    """Run ``index VERB``.

    Raises:
        G2RError: there is no index, or what is asked of it cannot be done.
    """
    cli = ExperimentCLI(f"index {verb}", arguments, ("data",) if verb == "calibrate" else ())
    given = cli.config.folder
    folder = resolve_path(given) if given else RunFolder(cli.run_settings.folder).folder / "index"
    read_manifest(folder)
    {"add": add, "remove": remove, "compact": fold, "calibrate": calibrate}[verb](cli, folder)


def add(cli: ExperimentCLI, folder: Path) -> None:
    """Add the responses of a file.

    Raises:
        G2RError: the file cannot be read or does not fit the index, or another process is changing the index.
    """
    settings = AddSettings(**{name: cli.config[name] for name in AddSettings.__dataclass_fields__})
    if settings.input is None:
        raise ConfigError("name the responses to add: --input=FILE (text, .jsonl, .parquet, or a candidate store)")
    done = add_responses(folder, responses_of(settings), settings.source, settings.strict)
    log.info(
        "%s: added %d responses; %d were there already or came twice, %d were blank; it has %d now",
        folder, done.added, done.duplicates, done.blank, len(load_live(folder)),
    )  # fmt: skip


def responses_of(settings: AddSettings) -> pa.Table:
    """Return the responses of a file with all that is told of them, and the values that all of them get.

    Raises:
        G2RError: the file cannot be read; a value is told by the file too, or is nothing that a column can hold.
    """
    stream = ResponseStream(settings.input or "", settings.field, settings.source, settings.columns, "input")
    columns = [("text", pa.string()), ("source", pa.string()), *((each.name, each.type) for each in stream.schema)]
    table = as_table(list(stream.rows()), pa.schema(columns))
    for name, value in (settings.values or {}).items():
        if name in table.column_names:
            raise ConfigError(f"--values: the responses tell their own '{name}'; take it out of one of them")
        if (column := repeated(value, len(table))) is None or half_character(name):
            raise ConfigError(
                f"--values: {name}={value!r} is nothing that a filter could ask about: give a text, a number, true or "
                "false, a date, or a list of texts"
            )
        table = table.append_column(name, column)
    return table


def remove(cli: ExperimentCLI, folder: Path) -> None:
    """Remove what any of the flags names.

    Raises:
        G2RError: nothing is named, or a text is not there, or nothing would be left.
    """
    settings = RemoveSettings(**{name: cli.config[name] for name in RemoveSettings.__dataclass_fields__})
    if not (settings.where or settings.texts or settings.patterns or settings.file):
        raise ConfigError("name what to remove: --where, --texts, --patterns or --file")
    texts = remove_responses(folder, lambda live: rows_to_remove(live, settings, folder))
    told = "".join(f"\n  {printable(text)}" for text in texts[:5]) + (
        f"\n  and {len(texts) - 5} more" if len(texts) > 5 else ""
    )
    log.info("%s: removed %d responses, it has %d now%s", folder, len(texts), len(load_live(folder)), told)


def rows_to_remove(live: LiveIndex, settings: RemoveSettings, folder: Path) -> npt.NDArray[np.int64]:
    """Return the rows that any of the settings names.

    Raises:
        G2RError: a condition or an expression cannot be read, or a text is not there.
    """
    mask = parse_condition(settings.where).mask(live.table) if settings.where else np.zeros(len(live.texts), bool)
    listed, expressions = read_block_list(settings.file) if settings.file else ([], [])
    blocked = BlockedResponses(listed, [*(settings.patterns or ()), *expressions])
    if blocked:
        mask |= ~blocked.mask(live.texts)
    if settings.texts:
        mask[rows_of(live, settings.texts, load_indexed_student(folder)[1].key)] = True
    rows: npt.NDArray[np.int64] = np.flatnonzero(mask & live.alive)
    return rows


def fold(cli: ExperimentCLI, folder: Path) -> None:
    """Build the index anew with its changes in it.

    Raises:
        G2RError: the output is there already, or the index cannot be built of what is left.
    """
    output = resolve_path(cli.config.output) if cli.config.output else None
    log.info("%s: %d responses, changes folded in", output or folder, compact(folder, output))


def calibrate(cli: ExperimentCLI, folder: Path) -> None:
    """Find the threshold below which nothing is said, on the experiment's validation dialogues.

    Raises:
        G2RError: there are no validation dialogues, or too few for the criterion.
    """
    settings = CalibrateSettings(**{name: cli.config[name] for name in CalibrateSettings.__dataclass_fields__})
    if settings.coverage is not None and settings.false_answers is not None:
        raise ConfigError("give --coverage or --false_answers, not both: one threshold keeps one promise")
    criterion = Criterion("coverage", 0.95 if settings.coverage is None else settings.coverage)
    if settings.false_answers is not None:
        criterion = Criterion("false_answers", settings.false_answers)
    live, (encoder, text) = load_live(folder), load_indexed_student(folder)
    data = cli.build("data")
    if not isinstance(data, DialogueDataModule):
        raise ConfigError("`index calibrate` needs a data module of g2r_lightning.data")
    data.prepare_for(text)
    scores = score_contexts(live, encoder, text, lists_to_measure(data, settings.examples))
    found = calibrate_abstention(criterion, scores, len(live), live.version)
    store_abstention(folder, found)
    log.info("%s", told(folder, found))


def told(folder: Path, abstention: dict[str, object]) -> str:
    """Return what a calibration found, for people."""
    figures, criterion = abstention["figures"], abstention["criterion"]
    assert isinstance(figures, dict)
    assert isinstance(criterion, dict)
    risk = "-" if figures["risk"] is None else f"{100 * figures['risk']:.1f}%"
    return (
        f"{folder}: replies that score less than {abstention['threshold']:.6g} are not given where "
        f"rules.threshold=calibrated ({criterion['kind']} {criterion['share']:g}).\n"
        f"Of {figures['contexts']} validation contexts {100 * figures['coverage']:.1f}% are answered; {risk} of those "
        f"are misread ({100 * figures['risk_of_all']:.1f}% of all); {100 * figures['gold_passes']:.1f}% of human and "
        f"{100 * figures['random_passes']:.2f}% of {figures['random_responses']} random responses would pass."
    )
