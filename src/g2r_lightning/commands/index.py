"""``index``: the response index of a checkpoint over a response set of any size, tuned on real contexts.

The responses are encoded into ``<output>.work`` beside the index, on any number of devices, unless they are encoded
already; the first process builds, measures and chooses there. The index takes its place when it is finished, and the
folder of work goes. A command that was killed goes on where it was.
"""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from g2r_lightning.commands.encode import export_of, run_encoding, student_of
from g2r_lightning.commands.index_contexts import Contexts, contexts_of
from g2r_lightning.commands.index_folder import Making, check_changes, check_place, finished, make
from g2r_lightning.commands.passes import NamedExport, encoding_trainer
from g2r_lightning.configuration import ExperimentCLI
from g2r_lightning.data import DialogueDataModule
from g2r_lightning.errors import ConfigError
from g2r_lightning.index import ResponseEncoding, ResponseStream, verify, weights_hash
from g2r_lightning.index.assembly import VectorSet, is_vectors, open_vectors
from g2r_lightning.index.choosing import plan_of
from g2r_lightning.index.folder import MANIFEST
from g2r_lightning.index.journal import verify_changes
from g2r_lightning.index.memory import GIB
from g2r_lightning.index.overlay import load_live
from g2r_lightning.index.response_index import EXACT
from g2r_lightning.index.stream import ListedResponses, Responses
from g2r_lightning.index.wish import AUTO, Dtype, Wish, check_disk
from g2r_lightning.inference.deployment import DEPLOYED
from g2r_lightning.inference.deployment import read_manifest as read_export
from g2r_lightning.inference.deployment import verify as verify_export
from g2r_lightning.machine import free_memory
from g2r_lightning.paths import alone_in, discard_folder, resolve_path
from g2r_lightning.runs import RunFolder, first_process
from g2r_lightning.sections import IndexSettings
from g2r_lightning.student import PolyEncoder, StudentEncoder, StudentText, load_student

log = logging.getLogger(__name__)
SHARE = 0.5  # of the free memory
UNKNOWN = 4 * GIB  # where the system does not say what is free


@dataclass(frozen=True)
class Student:
    """Who made, or makes, the vectors.

    Args:
        encoder: in evaluation mode.
        text: its way with texts.
        facts: run and checkpoint, as far as they are known.
        weights: hash of its parameters.
    """

    encoder: StudentEncoder
    text: StudentText
    facts: dict[str, Any]
    weights: str


def index(arguments: Sequence[str]) -> None:
    """Build ``--index.output``, or check it with ``--verify``.

    Raises:
        G2RError: student, input, contexts or folder cannot be used, or what was asked for cannot be had.
    """
    cli = ExperimentCLI("index", arguments, ())
    settings = IndexSettings(**vars(cli.config.index))
    output = resolve_path(settings.output) if settings.output else RunFolder(cli.run_settings.folder).folder / "index"
    if cli.config.verify:
        check(output)
        return
    check_place(output)
    vectors = _vectors(settings.input)
    wish = wish_of(settings, "float32" if vectors is None else vectors.dtype)
    student = _student(cli, settings, vectors)
    if isinstance(student.encoder, PolyEncoder) and wish.factory == AUTO:
        wish = replace(wish, factory=EXACT)  # searched by its codes, which asks no FAISS index
    data = _data(cli, student.text)
    contexts = contexts_of(settings, data, student.encoder, student.text)
    responses = None if vectors is not None else _responses(settings, data)
    export = export_of(cli, settings.student, student.encoder, student.text)
    if export is not None and vectors is not None:
        raise ConfigError(
            f"--encoder={cli.config.encoder}: {vectors.path} holds vectors already, there is nothing to encode; leave "
            "it out, or give the response set itself as --index.input"
        )
    computed = cli.config.trainer.precision if export is None else export.name
    asked = _asked(settings, student, vectors, responses, contexts, computed)
    making = Making(output, asked, wish, student.facts)
    if finished(making):
        if first_process():  # of a process that was killed when all was done
            with alone_in(making.work) if making.work.is_dir() else nullcontext():
                discard_folder(making.work)
        log.info("%s is finished; delete it, or change a setting, to build it anew", output)
        return
    check_changes(output)
    with alone_in(making.work) if first_process() else nullcontext():
        if responses is not None:
            vectors = _encoded(cli, settings, responses, student, making, contexts is not None, export)
            if vectors is None:  # another process builds
                return
        assert vectors is not None
        begun = time.perf_counter()
        manifest = make(making, vectors, student.encoder, student.text, contexts)
    report(output, manifest, time.perf_counter() - begun)


def wish_of(settings: IndexSettings, dtype: Dtype = "float32") -> Wish:
    """Return what kind of index the settings ask for.

    Args:
        settings: of the command.
        dtype: of the embeddings where the settings name none.

    Raises:
        ConfigError: the recall is no share.
    """
    if not 0 < settings.recall <= 1:
        raise ConfigError(f"--index.recall={settings.recall:g}: a share, above 0 and at most 1; 0.99 is usual")
    free = free_memory()
    limit = int(settings.memory_limit * GIB) if settings.memory_limit else int(SHARE * free) if free else UNKNOWN
    return Wish(settings.factory, settings.search, settings.recall, settings.recall_at, limit, settings.dtype or dtype)


def check(folder: Path) -> None:
    """Compare every file of an index, and of the encoders that were exported into it, with its checksum.

    Raises:
        G2RError: names what is not as it was written.
    """
    verify(folder)
    verify_changes(folder)
    responses = load_live(folder)
    exports = [path.parent for path in sorted((folder / DEPLOYED).glob(f"*/{MANIFEST}"))]
    for export in exports:
        verify_export(export, read_export(export))
    also = f", and {len(exports)} exported encoder{'s' if len(exports) > 1 else ''}" if exports else ""
    log.info("%s: %d responses%s, every file as it was written", folder, len(responses), also)


def _vectors(given: str | None) -> VectorSet | None:
    """Return the vectors that are there already; ``None`` where the input is a response set."""
    if given is None:
        return None
    path = resolve_path(given)
    return open_vectors(path) if path.is_dir() and is_vectors(path) else None


def _student(cli: ExperimentCLI, settings: IndexSettings, vectors: VectorSet | None) -> Student:
    """Return the student, after a look at whether it made the vectors.

    Raises:
        ConfigError: there is none, or another one made them.
    """
    named = settings.student
    indexed = vectors is not None and (vectors.path / "student").is_dir()
    if named is None and vectors is not None and indexed and cli.config.get("model") is None:
        named = str(vectors.path)  # an index has its student with it
    encoder, text, facts = student_of(cli, named)
    student = Student(encoder.eval(), text, facts, weights_hash(encoder))
    if vectors is not None:
        made = weights_hash(load_student(vectors.path / "student")[0]) if indexed else vectors.weights
        if made != student.weights:
            raise ConfigError(
                f"{vectors.path}: its vectors were made by another student than the one that is to answer; name that "
                "one with --ckpt_path or --index.student, or give the response set itself as --index.input"
            )
    return student


def _data(cli: ExperimentCLI, text: StudentText) -> DialogueDataModule | None:
    """Return the experiment's dialogues, if it has any."""
    if cli.config.get("data") is None:
        return None
    data = cli.build("data")
    if not isinstance(data, DialogueDataModule):
        return None
    data.prepare_for(text)
    return data


def _responses(settings: IndexSettings, data: DialogueDataModule | None) -> Responses:
    """Return the response set that is to be encoded.

    Raises:
        ConfigError: none is named, and the experiment has none.
    """
    if settings.input is not None:
        return ResponseStream(settings.input, settings.field, settings.source, settings.columns, "index")
    if data is None:
        raise ConfigError(
            "name a response set with --index.input=FILE (text, .jsonl, .parquet, a candidate store, or a folder of "
            "`encode`), or an experiment whose training responses it is with -c"
        )
    found = data.response_set
    return ListedResponses(found.texts, found.sources, Path("the experiment's responses"))


def _asked(
    settings: IndexSettings, student: Student, vectors: VectorSet | None, responses: Responses | None,
    contexts: Contexts | None, computed: str | None,
) -> dict[str, Any]:  # fmt: skip
    """Return what makes this index another one than the one that is there."""
    given: dict[str, Any] = responses.describe() if responses is not None else {"vectors": vectors and vectors.identity}
    return {
        "student": student.weights,
        "text": student.text.fingerprint(),
        "input": given,
        "factory": settings.factory,
        "search": settings.search,
        "recall": settings.recall,
        "recall_at": settings.recall_at,
        "memory_limit": settings.memory_limit,
        "dtype": settings.dtype,
        "contexts": None if contexts is None else contexts.identity,
        **({} if computed is None else {"computed": computed}),
    }


def _encoded(
    cli: ExperimentCLI,
    settings: IndexSettings,
    responses: Responses,
    student: Student,
    making: Making,
    tunable: bool,
    export: NamedExport | None,
) -> VectorSet | None:
    """Encode the responses into the folder of work; ``None`` for all processes but the first.

    Raises:
        G2RError: what is wanted cannot fit, which is said before anything is encoded.
    """
    size = student.encoder.dimension * (2 if making.wish.dtype == "float16" else 4)

    def look(count: int) -> None:
        """Refuse what cannot be built over so many responses."""
        plan_of(making.wish, count, student.encoder.dimension, tunable)
        check_disk(making.output, 3 * count * size)

    trainer, precision = encoding_trainer(cli, export)
    encoding = ResponseEncoding(
        making.work / "encoded", responses, student.encoder, student.text, making.wish.dtype, precision,
        settings.shard_size, settings.token_budget, section="index", look=look,
        export=export and export.encoder,
    )  # fmt: skip
    run_encoding(trainer, encoding)
    if not trainer.is_global_zero:
        return None
    encoding.finish()
    student.encoder.cpu()
    return open_vectors(encoding.folder)


def report(folder: Path, manifest: dict[str, Any], seconds: float) -> None:
    """Print what was built, and what else was measured."""
    console = Console(file=sys.stdout)
    measured = manifest.get("measured")
    told = {
        "responses": f"{manifest['responses']:,}",
        "factory": manifest["factory"],
        "search": ", ".join(f"{name} {value:g}" for name, value in manifest["search"].items()) or "-",
        "size on disk": f"{sum(facts['bytes'] for facts in manifest['files'].values()) / 1e6:,.1f} MB",
        "built and measured in": f"{seconds:,.1f} s",
    }
    if measured:
        told[f"recall@{measured['recall_at']} on {measured['contexts']} contexts"] = f"{measured['recall']:.4f}"
        told["one search, p50 and p95"] = f"{measured['p50_ms']:.2f} and {measured['p95_ms']:.2f} ms"
    table = Table(title=f"index: {folder}", show_header=False)
    for name, value in told.items():
        table.add_row(name, value)
    console.print(table)
    if measured and len(measured["points"]) > 1:
        console.print(_points(measured))


def _points(measured: dict[str, Any]) -> Table:
    """Return the settings that no other beats, fastest first."""
    table = Table(title="what else can be had: fastest first, none of them beaten by another")
    for name in ("factory", "search", f"recall@{measured['recall_at']}", "p50 ms", "p95 ms", "MB"):
        table.add_column(name, justify="left" if name in ("factory", "search") else "right")
    for point in measured["frontier"]:
        search = ", ".join(f"{name} {value:g}" for name, value in point["search"].items())
        figures = (f"{point['recall']:.4f}", f"{point['p50_ms']:.2f}", f"{point['p95_ms']:.2f}")
        table.add_row(point["factory"], search, *figures, f"{point['bytes'] / 1e6:,.1f}")
    return table
