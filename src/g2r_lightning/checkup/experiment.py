"""What an experiment names, and whether it is there: files, models, libraries, its store, its run folder.

The configuration is parsed as every command parses it. Files and models are looked for first; only where all files of
dialogues are there are they read, since the store's fit and sets that are too small show in nothing less.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from g2r_lightning.checkup.finding import Finding, Level
from g2r_lightning.checkup.machine import write_findings
from g2r_lightning.checkup.needs import Need, architecture, student_need
from g2r_lightning.checkup.sizes import existing, size
from g2r_lightning.composition import imported
from g2r_lightning.configuration import ExperimentCLI
from g2r_lightning.dialogue.readers.base import DialogueReader
from g2r_lightning.dialogue.text import text_key
from g2r_lightning.errors import G2RError
from g2r_lightning.hub import resolve_model
from g2r_lightning.machine import free_memory
from g2r_lightning.paths import resolve_path
from g2r_lightning.runs import CONFIG, RunFolder, differences
from g2r_lightning.store import CandidateStore
from g2r_lightning.student.backbone import resolve_encoder
from g2r_lightning.student.persistence import SETTINGS

SECTION = "experiment"
MODEL_KEYS = ("name_or_path", "encoder_name_or_path", "decoder_name_or_path", "tokenizer")
WEIGHTS = ("*.safetensors", "pytorch_model*.bin")
Tree = dict[str, Any]


class ExperimentCheck:
    """Look at what a command would need of an experiment.

    Args:
        cli: the parsed experiment.
        command: ``fit``, ``generate`` or ``score``: what this one needs and is not there is a problem, what the others
            need a warning.
    """

    def __init__(self, cli: ExperimentCLI, command: str) -> None:
        self.cli = cli
        self.command = command
        self.tree: Tree = cli.config.as_dict()

    def findings(self) -> list[Finding]:
        """Return one line for each thing that is named."""
        if self.tree.get("data") is None:
            return [_finding("problem", "no section `data`: nothing to read", "lay this file over one that has it")]
        files = [*self._files()]
        found = [*files, *self._models(), *self._libraries(), *self._places()]
        if any(finding.level == "problem" for finding in files):
            text = "dialogues and store are not compared: files are missing"
            return [*found, _finding("warning", text, "restore the files above, and ask again")]
        found += self._data()
        return [*found, *self._needs()]

    # -- what is named ---------------------------------------------------------------------------------------------

    def _files(self) -> Iterator[Finding]:
        """Look for the files of dialogues and responses."""
        for key, path in _reader_files(self.tree.get("data"), "data"):
            yield _file(key, path, "problem")
        for path in self._data_settings().get("response_files") or []:
            yield _file("data.init_args.response_files", path, "problem")
        contexts = (self.tree.get("predict") or {}).get("contexts")
        if contexts is not None:
            yield _file("predict.contexts", contexts, "warning")

    def _models(self) -> Iterator[Finding]:
        """Look for the models that the sections `model`, `teacher` and `rerank` name."""
        for section in ("model", "teacher"):
            needed = section == ("model" if self.command == "fit" else "teacher")
            for key, name in _named_models(self.tree.get(section), section):
                yield _model(key, name, "problem" if needed else "warning")
        yield from self._second_stage()
        if self.tree.get("teacher") is None and self.command != "fit":
            yield _finding(
                "problem", f"no section `teacher`, which `{self.command}` needs", "add experiments/teacher.yaml"
            )
        if self.tree.get("model") is None and self.command == "fit":
            yield _finding("problem", "no section `model`, which `fit` needs", "add experiments/bi.yaml over base.yaml")

    def _second_stage(self) -> Iterator[Finding]:
        """Look for the models of the section `rerank`, which `predict`, `chat`, `serve` and `latency` need."""
        stage = self.tree.get("rerank")
        for key, name in _named_models(stage, "rerank"):
            yield _model(key, name, "warning")
        folder = ((stage or {}).get("init_args") or {}).get("folder")
        if isinstance(folder, str):
            whole = any((resolve_path(folder) / part / SETTINGS).is_file() for part in ("", "student"))
            text = f"rerank.init_args.folder={folder}: {'a student is there' if whole else 'no student in it'}"
            yield _finding(
                "ok" if whole else "warning", text, "" if whole else "name the index of a poly-encoder's run"
            )

    def _libraries(self) -> Iterator[Finding]:
        """Look for the libraries that only some settings need."""
        wanted = {"EndpointTeacher": ("openai", "endpoint")}
        for section in ("model", "teacher"):
            for node in _nodes(self.tree.get(section)):
                name = str(node.get("class_path", "")).rpartition(".")[2]
                module, extra = wanted.get(name, ("", ""))
                if (node.get("init_args") or {}).get("lora") is not None:
                    module, extra = "peft", "lora"
                if module and importlib.util.find_spec(module) is None:
                    yield _finding(
                        "problem", f"{section}: {name} needs {module}", f"pip install 'g2r-lightning[{extra}]'"
                    )
        if self.tree.get("filters"):
            try:
                filters = self.cli.build("filters")
                yield _finding("ok", f"filters: {len(filters)} are ready")
            except G2RError as error:
                yield _finding("problem" if self.command == "generate" else "warning", f"filters: {error}", "see there")

    def _places(self) -> list[Finding]:
        """Try the places that are written to, and look at the run that may lie there."""
        run = self.cli.run_settings.folder
        places = [("run", run)]
        if cache := self._data_settings().get("cache_dir"):
            places.append(("token cache", Path(cache)))
        if self.command != "fit" and (store := self._store()) is not None:
            places.append(("store", resolve_path(store)))
        return [*write_findings(places, SECTION), *self._run(RunFolder(run))]

    def _run(self, run: RunFolder) -> Iterator[Finding]:
        if not (run.folder / CONFIG).is_file() or self.command != "fit":
            return
        try:
            status = run.record().get("status", "begun")
            there = yaml.safe_load((run.folder / CONFIG).read_text(encoding="utf-8"))
        except (G2RError, OSError, ValueError, yaml.YAMLError) as error:
            yield _finding("problem", f"{run.folder} holds a damaged run ({error})", "--run.on_existing=overwrite")
            return
        clashes = differences(there if isinstance(there, dict) else {}, yaml.safe_load(self.cli.saved_config()))
        if clashes:
            text = f"{run.folder} holds a run with other settings: {'; '.join(clashes[:3])}"
            yield _finding("problem", text, "choose another --run.name, or --run.on_existing=overwrite")
        else:
            yield _finding("ok", f"{run.folder} holds this run, {status}: `fit` goes on with it")

    # -- what stands in it -----------------------------------------------------------------------------------------

    def _data(self) -> Iterator[Finding]:
        """Read the dialogues, and compare them with the store."""
        try:
            data = self.cli.build("data")
            examples, dialogues = data.train_examples, data.dialogues
        except G2RError as error:
            yield _finding("problem", f"data: {error}", "mend what is named there")
            return
        yield _finding("ok", f"{len(dialogues['train']['train']):,} training dialogues, {len(examples):,} responses")
        for reader in (*data.train_readers, *data.readers["validation"].values(), *data.readers["test"].values()):
            if reader.skipped:
                first = reader.skipped[0]
                text = (
                    f"{reader.path}: {len(reader.skipped)} dialogues cannot be used; line {first.line}: {first.reason}"
                )
                yield _finding("warning", text, "they are left out; strict: true stops at the first")
        if data.dropped_leaks:
            yield _finding("ok", f"{data.dropped_leaks} training dialogues stand in an evaluation set too: left out")
        for stage in ("validation", "test"):
            for name, own in dialogues[stage].items():
                yield _evaluation_set(stage, name, own, data.choices)
        yield from self._stored(data)

    def _stored(self, data: Any) -> Iterator[Finding]:
        """Open the store and compare it with the experiment's examples."""
        named = self._data_settings().get("store")
        path = named or self._store()
        if path is None:
            return
        if self.command == "generate" and not resolve_path(path).exists():
            yield _finding("ok", f"store {path}: `generate` will make it")
            return
        try:
            store = CandidateStore(path)
            count = store.candidates.num_rows if named is None else sum(map(len, data.train_candidates))
        except G2RError as error:
            level: Level = "problem" if named is not None or self.command == "score" else "warning"
            yield _finding(level, f"store: {error}", "the command that is named there makes it")
            return
        sets = ", ".join(store.score_names()) or "none"
        yield _finding("ok", f"store {path}: {count:,} candidates for this experiment; score sets: {sets}")

    def _needs(self) -> Iterator[Finding]:
        """Estimate what training takes, and compare it with what is free."""
        model = self.tree.get("model") or {}
        settings = model.get("init_args") or {}
        encoder = settings.get("encoder") or {}
        options = encoder.get("init_args") or {}
        if self.command != "fit" or not isinstance(options.get("name_or_path"), str):
            return
        try:
            shape = architecture(resolve_encoder(options["name_or_path"]))
        except (G2RError, OSError, ValueError, AttributeError) as error:
            text = f"memory of the training is unknown: {str(error).splitlines()[0][:160]}"
            yield _finding("warning", text, "make the model available, and ask again")
            return
        text_settings = (settings.get("text") or {}).get("init_args") or {}
        need = student_need(shape, options, text_settings, self._data_settings())
        yield _memory(need, free_memory())
        yield self._disk(need)

    def _disk(self, need: Need) -> Finding:
        import shutil

        folder = self.cli.run_settings.folder
        kept = 2 * need.checkpoint  # the best and the last
        free = shutil.disk_usage(existing(folder)).free
        text = f"{size(kept)} of disk for two checkpoints, {size(free)} are free"
        if free < kept:
            return _finding("problem", text, "choose another --run.root, or see `python -m g2r_lightning clean`")
        return _finding("ok", text)

    def _data_settings(self) -> Tree:
        return (self.tree.get("data") or {}).get("init_args") or {}

    def _store(self) -> str | None:
        return self.tree.get("store") or self._data_settings().get("store")


def _memory(need: Need, free: int | None) -> Finding:
    text = (
        f"training {need.parameters / 1e6:,.1f} million parameters: {size(need.state)} (weights, gradients, AdamW), "
        f"at most {size(need.activations)} for a step in float32"
    )
    if free is None:
        return _finding("ok", text)
    text += f"; {size(free)} of memory are free"
    smaller = "--model.encoder.cached_gradients=true, a smaller --data.batch_size, fewer negatives or shorter texts"
    if need.state > free:
        return _finding("problem", text, "take a smaller encoder, or a machine with more memory")
    if need.state + need.activations > free:
        return _finding("warning", f"{text} (real texts are shorter than they may be)", f"should it not fit: {smaller}")
    return _finding("ok", text)


def _evaluation_set(stage: str, name: str, dialogues: list[Any], choices: int) -> Finding:
    examples = [example for dialogue in dialogues for example in dialogue.examples()]
    distinct = len({text_key(example.response) for example in examples})
    text = f"{stage} set {name}: {len(dialogues):,} dialogues, {len(examples):,} responses"
    listed = all(example.choices for example in examples)
    if distinct < choices and not listed:
        remedy = f"give it more dialogues, or choose among fewer: --data.choices={max(distinct, 2)}"
        return _finding("problem", f"{text}, {distinct} of them distinct: too few for lists of {choices}", remedy)
    return _finding("ok", text)


def _file(key: str, path: str, level: Level) -> Finding:
    place = resolve_path(path)
    if place.is_file() and os.access(place, os.R_OK):
        return _finding("ok", f"{path}: {size(place.stat().st_size)}")
    reason = (
        "a folder, not a file" if place.is_dir() else "no permission to read it" if place.exists() else "no such file"
    )
    remedy = f"put it there, or set {key} (an alias of the experiment, where there is one)"
    return _finding(level, f"{path}: {reason}", remedy)


def _model(key: str, name: str, level: Level) -> Finding:
    """Look for a model: a package, a folder with weights, or a hub name that is in the cache."""
    try:
        place = Path(resolve_model(name, key)).expanduser()
    except G2RError as error:
        return _finding(level, str(error), "install it, or name a folder")
    if place.is_dir():
        folders = (place, place / "0_Transformer")
        if any((one / "config.json").is_file() and _weights(one) for one in folders):
            return _finding("ok", f"{key}={name}: {size(sum(map(_weights, folders)))} of weights")
        return _finding(level, f"{key}={name}: this folder holds no model (config.json and weights)", "make it again")
    if name.startswith((".", "/", "~")) or name.count("/") > 1 or (place.parent != Path() and place.parent.is_dir()):
        remedy = (
            "make it first: `fit` of the experiment whose run folder this is"
            if key.startswith("teacher")
            else ("check the path")
        )
        return _finding(level, f"{key}={name}: no such folder", remedy)
    from huggingface_hub import try_to_load_from_cache

    if isinstance(try_to_load_from_cache(name, "config.json"), str):
        return _finding("ok", f"{key}={name}: in the hub's cache")
    if os.environ.get("HF_HUB_OFFLINE", "0").upper() in {"1", "ON", "YES", "TRUE"}:
        return _finding(
            level, f"{key}={name}: not in the hub's cache, and the hub is switched off", "unset HF_HUB_OFFLINE"
        )
    return _finding(
        "warning", f"{key}={name}: will be downloaded from the hub", "check name and network, or name a folder"
    )


def _weights(folder: Path) -> int:
    return sum(path.stat().st_size for pattern in WEIGHTS for path in folder.glob(pattern))


def _nodes(tree: Any) -> Iterator[Tree]:
    """Yield every mapping within a tree."""
    if isinstance(tree, dict):
        yield tree
        for value in tree.values():
            yield from _nodes(value)
    elif isinstance(tree, list):
        for value in tree:
            yield from _nodes(value)


def _reader_files(tree: Any, key: str) -> Iterator[tuple[str, str]]:
    """Yield key and path of every reader within a tree."""
    if isinstance(tree, list):
        for number, value in enumerate(tree):
            yield from _reader_files(value, f"{key}.{number}")
    if not isinstance(tree, dict):
        return
    owner = imported(tree["class_path"]) if "class_path" in tree else None
    if isinstance(owner, type) and issubclass(owner, DialogueReader):
        path = (tree.get("init_args") or {}).get("path")
        if isinstance(path, str):
            yield f"{key}.init_args.path", path
        return
    for name, value in tree.items():
        yield from _reader_files(value, f"{key}.{name}")


def _named_models(tree: Any, key: str) -> Iterator[tuple[str, str]]:
    """Yield key and name of every model within a tree."""
    if not isinstance(tree, dict):
        return
    for name, value in tree.items():
        if name in MODEL_KEYS and isinstance(value, str):
            yield f"{key}.{name}", value
        else:
            yield from _named_models(value, f"{key}.{name}")


def _finding(level: Level, text: str, remedy: str = "") -> Finding:
    return Finding(SECTION, level, text, remedy)
