"""``quality``: what a learned metric thinks of the replies of a file, of a candidate store, or of a run."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from g2r_lightning.commands.evaluate import chosen_checkpoint
from g2r_lightning.commands.passes import pass_trainer
from g2r_lightning.configuration import ExperimentCLI
from g2r_lightning.errors import ConfigError
from g2r_lightning.paths import atomic_path, resolve_path, writable_place
from g2r_lightning.progress import progress_bar
from g2r_lightning.runs import RunFolder
from g2r_lightning.sections import QualitySettings
from g2r_lightning.store.hashing import file_hash
from g2r_lightning.studies.replies import Answered, read_answers, read_replies, read_run
from g2r_lightning.studies.unreferenced import UnreferencedModule
from g2r_lightning.studies.unreferenced.quality import TOGETHER, Scores, scores_of, summary_of, write_lines, write_run

log = logging.getLogger(__name__)


def quality(arguments: Sequence[str]) -> None:
    """Score ``--quality.input`` or the replies of ``--quality.run`` with the metric of the experiment's run.

    Raises:
        ConfigError: neither or both are named, or the experiment is no metric's, or it has no checkpoint.
        G2RError: the replies cannot be read.
    """
    cli = ExperimentCLI("quality", arguments, ("model",))
    settings = QualitySettings(**vars(cli.config.quality))
    if (settings.input is None) == (not settings.run):
        raise ConfigError(
            "name what is to be judged: --quality.input=FILE (JSONL of contexts and replies, or a candidate store), or "
            "--quality.run=runs/NAME (a finished run's replies to its test sets; [runs/A,runs/B] for several)"
        )
    own_run = RunFolder(cli.run_settings.folder)
    checkpoint = chosen_checkpoint(cli.config.ckpt_path, own_run)
    if checkpoint is None:
        raise ConfigError("--ckpt_path=none: an untrained metric's scores mean nothing; name a checkpoint")
    if settings.run is not None:
        _judge_runs(_metric(cli, checkpoint), checkpoint, settings)
        return
    assert settings.input is not None
    output = _output(settings, own_run)
    answered = read_replies(settings.input)
    scored = list(_scored(_metric(cli, checkpoint), answered))
    write_lines(output, answered, scored)
    figures = summary_of(answered, scored)
    with atomic_path(output.with_suffix(".summary.json")) as temporary:
        told = {**figures, "metric_sha256": file_hash(Path(checkpoint))}  # scores of two metrics are never compared
        temporary.write_text(json.dumps(told, indent=2) + "\n", encoding="utf-8")
    _print(f"{settings.input}: quality", {f"replies/{key}": value for key, value in figures.items()})
    log.info("wrote the scores of %d contexts to %s", len(answered), output)


def _judge_runs(module: UnreferencedModule, checkpoint: str, settings: QualitySettings) -> None:
    """Write and print what the metric thinks of the replies of one run or several, whose texts are encoded once."""
    runs = [settings.run] if isinstance(settings.run, str) else list(dict.fromkeys(settings.run or ()))
    found = [read_run(run, settings.stage) for run in runs]
    answers = [
        read_answers(run, [TOGETHER, *(one.name for one in sets)]) if settings.stage == "test" else {}
        for run, sets in zip(runs, found, strict=True)
    ]
    groups = [
        group
        for sets, others in zip(found, answers, strict=True)
        for group in (*(side for one in sets for side in (one.replies, one.human)), *others.values())
    ]
    scores = _scored(module, [one for group in groups for one in group])
    label = "quality" if settings.stage == "test" else f"quality-{settings.stage}"
    metric = {"checkpoint": checkpoint, "sha256": file_hash(Path(checkpoint)), "stage": settings.stage}
    for run, sets, others in zip(runs, found, answers, strict=True):
        own, human = [], []
        for one in sets:
            own.append([next(scores) for _ in one.replies])
            human.append([next(scores) for _ in one.human])
        judged = RunFolder(resolve_path(run))
        scored = {name: (group, [next(scores) for _ in group]) for name, group in others.items()}
        figures = write_run(judged.folder, sets, own, human, label, scored)
        judged.update_record(quality_metric=metric)
        _print(f"{judged.folder.name}: quality", figures)


def _metric(cli: ExperimentCLI, checkpoint: str) -> UnreferencedModule:
    """Return the metric with the weights of a checkpoint, on the device of the experiment's trainer."""
    model = cli.build("model")
    if not isinstance(model, UnreferencedModule):
        raise ConfigError(
            "`quality` needs a learned metric as the model (g2r_lightning.studies.unreferenced.UnreferencedModule): "
            "fit -c experiments/maude.yaml, then give its runs/maude/config.yaml"
        )
    held = torch.load(checkpoint, map_location="cpu", weights_only=True)
    model.on_load_checkpoint(held)  # refuses another metric's
    model.load_state_dict(held["state_dict"])
    return model.to(pass_trainer(cli).strategy.root_device)


def _scored(module: UnreferencedModule, answered: Sequence[Answered]) -> Iterator[Scores]:
    with progress_bar(desc="encoding utterances", unit="text", leave=False) as bar:

        def advance(done: int) -> None:
            """Move the bar on."""
            bar.update(done)

        return iter(scores_of(module, answered, advance))


def _output(settings: QualitySettings, run: RunFolder) -> Path:
    assert settings.input is not None
    source = resolve_path(settings.input)
    output = Path(settings.output or run.folder / "quality" / f"{source.stem}.jsonl").expanduser()
    if output.exists() and source.exists() and output.samefile(source):
        raise ConfigError(f"--quality.output={output}: the scores would replace the replies; name another file")
    return writable_place(output)


def _print(title: str, figures: dict[str, float]) -> None:
    """Print figures, a column a set, each with its interval."""
    sets = list(dict.fromkeys(key.split("/")[0] for key in figures))
    table = Table(title=title)
    table.add_column("")
    for name in sets:
        table.add_column(name, justify="right")
    keys = dict.fromkeys(key.split("/", 1)[1] for key in figures)
    for key in (key for key in keys if not key.endswith(("_low", "_high"))):
        table.add_row(key, *(_cell(figures, f"{name}/{key}") for name in sets))
    Console().print(table)


def _cell(figures: dict[str, float], key: str) -> str:
    value, low, high = (figures.get(f"{key}{end}") for end in ("", "_low", "_high"))
    if value is None:
        return ""
    if key.endswith(("/examples", "/contexts", "/replies")):
        return f"{value:.0f}"
    return f"{value:.3f}" if low is None else f"{value:.3f} [{low:.3f}, {high:.3f}]"
