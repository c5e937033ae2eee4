"""What files hold, apart from when and by whom they were written: two runs of one command must agree in it."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import yaml

TIMES = (
    "seconds", "build_seconds", "p50_ms", "p95_ms", "points", "frontier", "started", "finished", "trained", "stopped",
    "created", "id", "last", "id_of_change", "timing", "memory_limit", "peak_gflops", "command", "machine", "git",
    "versions", "checkpoint_sha256", "files", "sha256", "base",
    "sha256_of_the_above",
)  # fmt: skip
"""Keys that tell of the clock, of the machine, or of a file's bytes (a checkpoint holds paths and times)."""

PASSING = (".tmp", ".log", ".sha256")


def contents(folder: Path, names: tuple[str, ...]) -> dict[str, Any]:
    """Return path -> content of all files below some files and folders."""
    found: dict[str, Any] = {}
    for name in names:
        top = folder / name
        files = [top] if top.is_file() else sorted(path for path in top.rglob("*") if path.is_file())
        for path in files:
            held = _content(path)
            if held is not None:
                found[str(path.relative_to(folder))] = held
    return found


def _content(path: Path) -> Any:
    kind = path.suffix
    if path.name.startswith("events.out") or kind in PASSING or "hparams" in path.name:
        return None
    if kind == ".parquet":
        table = pq.read_table(path)
        return table.to_pylist(), table.schema.metadata
    if kind == ".arrow":
        with pa.OSFile(str(path), "rb") as file:
            return pa.ipc.open_file(file).read_all().to_pylist()
    if kind == ".npy":
        array = np.load(path)
        return str(array.dtype), array.shape, hashlib.sha256(array.tobytes()).hexdigest()
    if kind == ".json":
        return _timeless(json.loads(path.read_text(encoding="utf-8")))
    if kind in (".yaml", ".yml"):
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    if kind == ".safetensors":
        from safetensors.numpy import load_file

        return {key: hashlib.sha256(value.tobytes()).hexdigest() for key, value in load_file(path).items()}
    if kind == ".ckpt":
        return _weights(path)
    if kind == ".md":
        return [line for line in path.read_text(encoding="utf-8").splitlines() if "second" not in line]
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _weights(path: Path) -> dict[str, str]:
    import torch

    state = torch.load(path, map_location="cpu", weights_only=True)["state_dict"]
    return {key: hashlib.sha256(value.numpy().tobytes()).hexdigest() for key, value in state.items()}


def _timeless(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _timeless(held) for key, held in value.items() if key not in TIMES}
    return [_timeless(held) for held in value] if isinstance(value, list) else value


def differences(reference: dict[str, Any], found: dict[str, Any]) -> list[str]:
    """Return what is missing, more, or other than in the reference, a line each."""
    lines = [f"missing: {name}" for name in reference.keys() - found.keys()]
    lines += [f"more: {name}" for name in found.keys() - reference.keys()]
    for name in reference.keys() & found.keys():
        if reference[name] != found[name]:
            lines.append(f"differs: {name}{_where(reference[name], found[name])}")
    return sorted(lines)


def _where(left: Any, right: Any) -> str:
    """Return the first keys that differ, with both values."""
    if not isinstance(left, dict) or not isinstance(right, dict):
        return ""
    keys = sorted(str(key) for key in left.keys() | right.keys() if left.get(key) != right.get(key))
    return f" ({', '.join(f'{key}: {left.get(key)!r:.60} and {right.get(key)!r:.60}' for key in keys[:3])})"
