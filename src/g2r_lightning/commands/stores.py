"""``import`` and ``export``: candidates that others made, into a store and out of it; and which store is meant."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from g2r_lightning.configuration import ExperimentCLI
from g2r_lightning.errors import ConfigError
from g2r_lightning.paths import resolve_path, writable_place
from g2r_lightning.sections import ScoringSettings
from g2r_lightning.store import CandidateStore, export_g2r_release, import_replies, write_store_from_examples

log = logging.getLogger(__name__)


def import_candidates(arguments: Sequence[str]) -> None:
    """Make a store from candidates that came with the data, or from ``--replies``."""
    cli = ExperimentCLI("import", arguments, ("data",))
    store, data = store_path(cli), cli.build("data")
    if cli.config.replies is not None:
        log.info("%s", import_replies(cli.config.replies, data.train_examples, store, cli.config.source))
        return
    if not any(example.candidates for example in data.train_examples):
        raise ConfigError(
            "nothing to import: the training data brings no candidates; name your replies with --replies=FILE (JSONL "
            'of {"context": [...], "replies": [...]}), or read the authors\' release with '
            "g2r_lightning.dialogue.readers.G2RReleaseReader"
        )
    manifest = write_store_from_examples(store, data.train_examples)
    log.info("%s: %d candidates of %d contexts", store, manifest.num_rows, manifest.num_examples)


def export_candidates(cli: ExperimentCLI) -> None:
    """Write a store as the authors' JSONL (``--output``)."""
    if cli.config.output is None:
        raise ConfigError("name the file to write: --output=FILE.jsonl")
    output = writable_place(resolve_path(cli.config.output))
    store = CandidateStore(store_path(cli))
    if store.path.resolve() in output.resolve().parents:
        raise ConfigError(f"--output={output} lies in the store that is exported; choose a place outside of it")
    scores = None
    if store.score_names():
        name = _score_set(store, cli.config.scoring.name)
        scores = {"ll": store.teacher_scores("ll", name)}
        if store.score_manifest(name).prior is not None:
            scores["mi"] = store.teacher_scores("mi", name)
    log.info("wrote %d lines to %s", export_g2r_release(store, output, scores), output)


def _score_set(store: CandidateStore, name: str) -> str | None:
    """Return the score set that is exported: the one that was named, else the store's only one."""
    if name in store.score_names():
        return name
    if name != ScoringSettings().name:
        known = ", ".join(store.score_names())
        raise ConfigError(f"{store.path} holds no scores named scoring.name={name}, but {known}")
    return None


def store_path(cli: ExperimentCLI) -> str:
    """Return the store's folder: ``--store``, else the one that the data section trains from.

    Raises:
        ConfigError: neither is set, or to nothing.
    """
    path = cli.config.store
    if path is None and cli.config.get("data") is not None:
        path = cli.config.data.get("init_args", {}).get("store")
    if not path:
        raise ConfigError("no store is named: set --store=FOLDER, or data.init_args.store in the experiment")
    return str(resolve_path(path))
