"""A run's folder: what it was asked for, how far it got, what it found.

``config.yaml`` is the composed configuration; ``record.json`` says which versions, data and machine made the figures,
and whether the run is finished. Running again in the same folder goes on where it stopped, or refuses and says which
setting differs; nothing is overwritten unless asked.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, Literal

import yaml

from g2r_lightning import __version__
from g2r_lightning.errors import ConfigError
from g2r_lightning.paths import alone_in, atomic_path, inside
from g2r_lightning.sealed_yaml import sealed_yaml, unsealed_yaml
from g2r_lightning.store.json_file import sealed, unsealed

CONFIG = "config.yaml"
RECORD = "record.json"
SCHEMA_VERSION = 1
"""Of ``record.json`` and ``results/*.json``."""
CHECKPOINTS = "checkpoints"
STACK = ("torch", "lightning", "transformers", "tokenizers", "torchmetrics", "numpy", "pyarrow", "faiss-cpu")
# These change where a run lives, what surrounds it or how long it lasts, not what is trained.
FREE_KEYS = (
    "run", "machine", "alias", "predict", "rules", "encode", "index", "chat", "latency", "serve", "rerank", "quality",
    "sweep",
    "sampling", "decodings", "filters", "scoring",
    "trainer.max_epochs", "trainer.max_steps", "trainer.max_time",
    "trainer.enable_progress_bar", "trainer.enable_model_summary", "trainer.log_every_n_steps",
)  # fmt: skip
LIMITS = ("trainer.max_epochs", "trainer.max_steps", "trainer.max_time")

State = Literal["new", "resume", "finished"]


class RunFolder:
    """The folder of one run.

    Args:
        folder: where it is or will be.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def open(self, config: str, on_existing: Literal["resume", "overwrite"]) -> State:
        """Make the folder ready for ``fit``.

        Args:
            config: the composed configuration as YAML.
            on_existing: what to do with a run that is there.

        Returns:
            ``new``; ``resume`` where :attr:`last_checkpoint` should be gone on from, also after the limits of training
            (``trainer.max_epochs`` and the like) were raised; ``finished`` where all is done.

        Raises:
            ConfigError: the folder holds a run with other settings (names them) or one that was trained for longer, or
                files of something else.
        """
        if on_existing == "overwrite" and (self.folder / CONFIG).is_file():
            self._empty()
        if not (self.folder / CONFIG).is_file():
            if self.folder.is_dir() and not all(map(_made_by_evaluation, self.folder.iterdir())):
                raise ConfigError(
                    f"{self.folder} exists and is no run of this project; choose another --run.name, or move it away"
                )
            self._write(CONFIG, sealed_yaml(config))
            return "new"
        there, here = self._config(), yaml.safe_load(config)
        clashes = differences(there, here)
        nothing_to_lose = self.last_checkpoint is None and not any(self.folder.glob("results/*.json"))
        if clashes and not nothing_to_lose:
            listed = "\n  ".join(clashes)
            raise ConfigError(
                f"{self.folder} holds a run with other settings:\n  {listed}\n"
                "Choose another --run.name, or replace the run with --run.on_existing=overwrite"
            )
        finished = self.record().get("status") == "finished"
        old, new = ({key: flat(tree).get(key) for key in LIMITS} for tree in (there, here))
        for key in LIMITS if finished else ():
            reached, wanted = old[key], new[key]
            if isinstance(reached, int) and isinstance(wanted, int) and 0 <= wanted < reached:
                raise ConfigError(
                    f"{self.folder} was trained to {key}={reached}, and cannot go back to {wanted}; choose another "
                    "--run.name, or replace the run with --run.on_existing=overwrite"
                )
        self._write(CONFIG, sealed_yaml(config))
        if finished and old == new:
            return "finished"
        return "resume" if self.last_checkpoint else "new"

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Keep other commands from training in the same folder; of several processes of one, the first asks.

        Raises:
            G2RError: another one trains in it.
        """
        with alone_in(self.folder) if first_process() else nullcontext():
            yield

    @property
    def last_checkpoint(self) -> Path | None:
        """The newest checkpoint that is whole, or ``None``."""
        found = [path for path in self._checkpoints() if zipfile.is_zipfile(path)]
        return found[-1] if found else None

    @property
    def cut_checkpoints(self) -> list[Path]:
        """The checkpoints that were cut short, as a crash or a full disk leaves them."""
        return [path for path in self._checkpoints() if not zipfile.is_zipfile(path)]

    @property
    def best_checkpoint(self) -> Path | None:
        """The checkpoint that the record names as the best, else the newest."""
        named = self.record().get("best_checkpoint")
        path = inside(self.folder / CHECKPOINTS, named) if named else None
        return path if path is not None and path.is_file() else self.last_checkpoint

    def record(self) -> dict[str, Any]:
        """Return ``record.json``, empty where there is none.

        Raises:
            ConfigError: it is damaged, or was written by a release whose records this one does not know.
        """
        found = self._json(RECORD)
        version = found.get("schema_version", 1)  # the first records did not tell
        if version != SCHEMA_VERSION:
            raise ConfigError(
                f"{self.folder / RECORD}: a record of schema version {version}, this release reads {SCHEMA_VERSION}; "
                "use the release that wrote it, or replace the run with --run.on_existing=overwrite"
            )
        return found

    def update_record(self, **facts: Any) -> None:
        """Add facts to ``record.json``."""
        whole = {"schema_version": SCHEMA_VERSION, **self.record(), **facts}
        self._write(RECORD, sealed(json.loads(json.dumps(whole, default=str))))

    def results(self, stage: str) -> dict[str, float]:
        """Return ``results/<stage>.json``, empty where there is none."""
        return self._json(f"results/{stage}.json")

    def example_files(self, stage: str = "test") -> dict[str, Path]:
        """Return set -> ``examples/<stage>-<set>.parquet``, in the order of the names.

        Only sets that ``results/<stage>.json`` tells of, where it is there: the files of another checkpoint or of an
        export, ``test-last-<set>.parquet``, begin alike.
        """
        told = {key.split("/", 1)[0] for key in self.results(stage)}
        paths = sorted((self.folder / "examples").glob(f"{stage}-*.parquet"))
        found = {path.stem.removeprefix(f"{stage}-"): path for path in paths}
        return {name: path for name, path in found.items() if not told or name in told}

    def _empty(self) -> None:
        """Remove what is in the folder; the configuration at last, so that a process that is killed here can go on."""
        for path in sorted(self.folder.iterdir(), key=lambda path: path.name == CONFIG):
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()

    def _checkpoints(self) -> list[Path]:
        return sorted((self.folder / CHECKPOINTS).glob("*.ckpt"), key=lambda path: path.stat().st_mtime)

    def _config(self) -> dict[str, Any]:
        path = self.folder / CONFIG
        try:
            found = yaml.safe_load(unsealed_yaml(path.read_text(encoding="utf-8")))
        except (ValueError, yaml.YAMLError) as error:
            found = " ".join(str(error).split())
        if not isinstance(found, dict):
            raise ConfigError(
                f"{path}: damaged ({found}), so nobody knows what this run was; choose another --run.name, or replace "
                "the run with --run.on_existing=overwrite"
            )
        return found

    def _json(self, name: str) -> dict[str, Any]:
        path = self.folder / name
        if not path.is_file():
            return {}
        try:
            return unsealed(path.read_text(encoding="utf-8"))
        except (ValueError, RecursionError) as error:
            raise ConfigError(f"{path}: damaged ({error}); delete it, the run goes on without it") from error

    def _write(self, name: str, text: str) -> None:
        with atomic_path(self.folder / name) as temporary:
            temporary.write_text(text, encoding="utf-8")


def differences(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """Return one line for each setting in which two configurations differ, those of :data:`FREE_KEYS` apart."""
    return [f"{key}: there {there!r}, here {here!r}" for key, (there, here) in differing(old, new, FREE_KEYS).items()]


def differing(old: dict[str, Any], new: dict[str, Any], free: Sequence[str] = ()) -> dict[str, tuple[Any, Any]]:
    """Return the settings in which two configurations differ, with both values; those under a ``free`` key apart."""
    left, right = flat(old), flat(new)
    return {
        key: (left.get(key), right.get(key))
        for key in sorted({*left, *right})
        if left.get(key) != right.get(key) and not any(f"{key}.".startswith(f"{one}.") for one in free)
    }


def environment() -> dict[str, Any]:
    """Return versions, machine and state of the source, for the record."""
    import torch

    return {
        "g2r_lightning": __version__,
        "python": platform.python_version(),
        "versions": {name: _version(name) for name in STACK},
        "machine": {
            "system": platform.platform(),
            "cores": os.cpu_count(),
            "threads": torch.get_num_threads(),
            "cpu": torch.backends.cpu.get_cpu_capability(),
            "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        },
        "git": _git(),
        "command": " ".join(sys.argv[1:]),
    }


def first_process() -> bool:
    """Whether this is the first, or the only one, of the processes that run a command together."""
    from lightning.pytorch.utilities import rank_zero_only

    return getattr(rank_zero_only, "rank", 0) == 0


def now() -> str:
    """Return the time in UTC, to the second."""
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


def readable_checkpoint(path: str | Path) -> str:
    """Return the path of a checkpoint after a look at it.

    Raises:
        ConfigError: there is no such file, or it is no checkpoint, or one that is damaged.
    """
    if not Path(path).is_file():
        raise ConfigError(f"--ckpt_path={path}: no such file")
    if not zipfile.is_zipfile(path) or not _whole(path):
        raise ConfigError(f"--ckpt_path={path}: no checkpoint, or a damaged one; delete it, or name another")
    import torch

    try:
        held = torch.load(path, map_location="cpu", mmap=True, weights_only=True)
    except (UnpicklingError, RuntimeError, ValueError, KeyError, EOFError) as error:
        raise ConfigError(
            f"--ckpt_path={path}: no checkpoint of plain weights, as every run here writes; name another"
        ) from error
    if not isinstance(held, dict) or not {"state_dict", "pytorch-lightning_version"} <= held.keys():
        raise ConfigError(f"--ckpt_path={path}: no checkpoint of a run, but other saved tensors; name another")
    return str(path)


def _whole(path: str | Path) -> bool:
    """Whether every part of an archive has the checksum it was written with: torch loads damaged weights in silence."""
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.testzip() is None
    except (zipfile.BadZipFile, OSError, RuntimeError, ValueError, KeyError, EOFError, zlib.error, OverflowError):
        return False  # a damaged table of contents tells of encryption, of unknown compression, of absurd sizes


def _made_by_evaluation(path: Path) -> bool:
    """Whether ``validate``, ``test`` or ``predict`` leaves such a thing in a folder without a run."""
    return path.name in ("results", "examples", "predictions", "hparams.yaml") or path.name.startswith("events.out.")


def flat(tree: Any, prefix: str = "") -> dict[str, Any]:
    """Return a tree of mappings and lists as one mapping with dotted keys.

    >>> flat({"data": {"batch_size": 8, "files": ["a", "b"]}})
    {'data.batch_size': 8, 'data.files.0': 'a', 'data.files.1': 'b'}
    """
    if isinstance(tree, dict) and tree:
        return {k: v for key, value in tree.items() for k, v in flat(value, f"{prefix}.{key}".lstrip(".")).items()}
    if isinstance(tree, list) and tree:
        return {k: v for i, value in enumerate(tree) for k, v in flat(value, f"{prefix}.{i}").items()}
    return {prefix: tree}


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _git() -> dict[str, Any] | None:
    """Return commit and whether the tree was changed, where the source is a git checkout."""
    source = Path(__file__).parent

    def run(*arguments: str) -> str:
        """Return what git says of the source."""
        command = ["git", "-C", str(source), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()  # noqa: S603

    try:
        return {"commit": run("rev-parse", "HEAD"), "changed": bool(run("status", "--porcelain", "--", str(source)))}
    except (OSError, subprocess.SubprocessError):
        return None
