"""``latency``: the student's replies beside its teachers', context by context, in one process."""

from __future__ import annotations

import importlib.util
import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import Progress

from g2r_lightning.commands.run_index import index_folder, run_folder
from g2r_lightning.commands.second_stage import rerank_of
from g2r_lightning.configuration import ExperimentCLI
from g2r_lightning.cpu import cpu_name
from g2r_lightning.data.corpus import examples_to_answer
from g2r_lightning.errors import ConfigError
from g2r_lightning.index.folder import read_manifest
from g2r_lightning.inference import Responder
from g2r_lightning.inference.deployment import DEPLOYED, FORMATS, MANIFEST, load_for_index
from g2r_lightning.inference.deployment import read_manifest as read_export
from g2r_lightning.inference.rerank import Reranker
from g2r_lightning.inference.rerank.base import place_for
from g2r_lightning.runs import environment
from g2r_lightning.sections import LatencySettings
from g2r_lightning.store.hashing import texts_hash
from g2r_lightning.store.json_file import write_json
from g2r_lightning.studies.latency import Call, measure, summarise
from g2r_lightning.studies.latency_record import CallRecord
from g2r_lightning.studies.latency_report import figures, tables, write_markdown, write_plot
from g2r_lightning.studies.latency_systems import StudentSystem, TeacherSystem, sampling_of, teacher_from
from g2r_lightning.teacher import Sampling, Teacher
from g2r_lightning.teacher.generator import Generator

log = logging.getLogger(__name__)


def latency(arguments: Sequence[str]) -> None:
    """Measure, and leave figures, page and plot in the run's ``results``.

    Raises:
        G2RError: index, contexts or a teacher are missing, or timings of other settings are there.
    """
    cli = ExperimentCLI("latency", arguments, ())
    settings = LatencySettings(**vars(cli.config.latency))
    index = index_folder(cli, settings.index)
    run = run_folder(cli, index)
    file, contexts = contexts_of(cli, settings)
    systems: list[StudentSystem | TeacherSystem] = [*students(index, rerank_of(cli, 1, "k")), *teachers(cli, settings)]
    conditions = conditions_of(settings)
    told = {"contexts": texts_hash(contexts), **conditions, **{one.name: one.describe() for one in systems}}
    record = CallRecord(run / "examples" / "latency.jsonl", told, settings.on_existing)
    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("replies", total=len(systems) * len(contexts), completed=len(record.calls))

        def write(call: Call) -> None:
            """Keep one timed call and show that it is done."""
            record.add(call)
            progress.advance(task)

        measure(systems, contexts, write, record.done, settings.turn)
    calls = [call for call in record.calls if call.context < len(contexts)]  # of more, in an earlier study
    facts = {"contexts": f"{len(contexts)} of {file.name}", "index": systems[0].describe()["index"], **conditions}
    report(run, [one.name for one in systems], calls, facts)


def contexts_of(cli: ExperimentCLI, settings: LatencySettings) -> tuple[Path, list[tuple[str, ...]]]:
    """Return the file of contexts, and the first of them.

    Raises:
        ConfigError: none is named.
        DataError: it cannot be read, or is empty.
    """
    named = settings.contexts or cli.config.predict.contexts
    if named is None:
        raise ConfigError(
            "name the contexts to answer, one JSON list of utterances a line: "
            "--latency.contexts=$G2R_DATA/blended_skill_talk/bst_test_dialogues_200.json"
        )
    return Path(named), [example.context for example in examples_to_answer(named)][: settings.limit]


def students(index: Path, rerank: Reranker | None = None) -> list[StudentSystem]:
    """Return the student in PyTorch, and through every export that lies in its index and can run here.

    Args:
        index: its folder.
        rerank: a second stage; each of them is measured without it, and with it.

    Raises:
        G2RError: there is no index, or it is damaged, or the second stage cannot be read.
    """
    plain, manifest = Responder.load(index), read_manifest(index)
    about = {
        "index": f"{len(plain.index)} responses, {manifest['factory']}",
        "checkpoint": manifest.get("checkpoint_sha256"),
    }
    systems = [StudentSystem("student pytorch", plain, about)]
    for form in FORMATS:
        folder = index / DEPLOYED / form
        if not (folder / MANIFEST).is_file():
            continue
        try:
            encoder, text = load_for_index(index, form)
        except ConfigError as error:  # its runtime is not installed
            log.warning("%s is left out: %s", folder, error)
            continue
        precision = read_export(folder)["precision"]
        name = f"student {form} {precision}"
        systems.append(StudentSystem(name, Responder(plain.index, encoder, text), {**about, "encoder": name}))
    return systems if rerank is None else [one for plain in systems for one in (plain, plain.reranked(rerank))]


def teachers(cli: ExperimentCLI, settings: LatencySettings) -> list[TeacherSystem]:
    """Return every teacher with every decoding; all of them are in memory together.

    Raises:
        G2RError: one cannot be loaded, or refuses a decoding.
    """
    found: dict[str, Generator] = {}
    if settings.teachers is not None:
        for name in settings.teachers:
            short = short_name(name)
            found[short if short not in found else name.replace("/", "_")] = teacher_from(name)
    elif cli.config.get("teacher") is not None:
        own = cli.build("teacher")
        found[short_name(str(own.describe()["name"]))] = own
    else:
        log.warning("no teacher to compare with: the experiment has none; name some with --latency.teachers=[FOLDER]")
    own_sampling = Sampling(**vars(cli.config.sampling))
    seed = int(cli.config.seed_everything or 0)
    systems = []
    for name, generator in found.items():
        if isinstance(generator, Teacher):
            generator.to(place_for(settings.device, "--latency.device"))
        for decoding in dict.fromkeys(settings.decodings):
            sampling = sampling_of(decoding, own_sampling, settings.max_tokens)
            generator.check(sampling)
            systems.append(TeacherSystem(f"{name} {decoding}", generator, sampling, seed))
    return systems


def short_name(name: str) -> str:
    """Return what a teacher is called in the tables: the last part of its name, or the run that exported it.

    >>> short_name("facebook/blenderbot-3B"), short_name("runs/small/teacher")
    ('blenderbot-3B', 'small')
    """
    path = Path(name)
    return path.parent.name if path.name == "teacher" and path.parent.name else path.name


def conditions_of(settings: LatencySettings) -> dict[str, Any]:
    """Return under which conditions this process measures."""
    found = environment()
    return {
        "cpu": cpu_name(),
        "gpu": found["machine"]["gpu"] if settings.device != "cpu" else None,
        "cores": found["machine"]["cores"],
        "threads": torch.get_num_threads(),
        "faiss_threads": _faiss_threads(),
        "turn": settings.turn,
        "versions": ", ".join(f"{name} {version}" for name, version in found["versions"].items()),
    }


def _faiss_threads() -> int | None:
    """Return how many threads a search may take; ``None`` where faiss is missing, and torch searches."""
    if importlib.util.find_spec("faiss") is None:
        return None
    import faiss

    return int(faiss.omp_get_max_threads())


def report(run: Path, systems: Sequence[str], calls: Sequence[Call], facts: dict[str, Any]) -> None:
    """Print the table, and write ``results/latency.json``, ``.md`` and ``.png``."""
    summaries = sorted(summarise(calls), key=lambda one: systems.index(one.system))
    found, results = figures(summaries, calls), run / "results"
    results.mkdir(parents=True, exist_ok=True)
    plot: str | None = "latency.png"
    try:
        write_plot(results / "latency.png", summaries)
    except ConfigError as error:
        log.warning("no plot: %s", error)
        plot = None
    write_json(results / "latency.json", {**found, **facts}, seal=False)
    write_markdown(results / "latency.md", found, systems, facts, plot)
    title = f"{run.name}: latency, {facts['contexts']}, {facts['threads']} threads"
    console = Console(file=sys.stdout)
    for one in tables(title, found, systems):
        console.print(one)
