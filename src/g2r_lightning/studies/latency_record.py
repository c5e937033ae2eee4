"""Timed calls as they come, a line of JSON each: a study that is stopped goes on where it was.

The first line says what was measured, and how; timings of other settings are never added to. A line that a kill cut
short is dropped.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

from g2r_lightning.errors import ConfigError, DataError
from g2r_lightning.paths import atomic_path, writable_place
from g2r_lightning.store import differences
from g2r_lightning.studies.latency import Call

SCHEMA_VERSION = 1


class CallRecord:
    """The file of a study's calls.

    Args:
        path: of the file.
        settings: what is measured, and how; JSON.
        on_existing: what to do with a file that is there.

    Raises:
        ConfigError: it holds calls of other settings; names them.
        DataError: it is no such file, or of another schema version.
    """

    def __init__(
        self, path: Path, settings: dict[str, Any], on_existing: Literal["resume", "overwrite"] = "resume"
    ) -> None:
        self.path = writable_place(path)
        self.calls: list[Call] = []
        if path.is_file() and on_existing == "resume":
            self.calls = self._read(settings)
        lines = [{"schema_version": SCHEMA_VERSION, "settings": settings}, *map(asdict, self.calls)]
        with atomic_path(path) as temporary:
            temporary.write_text("".join(_line(one) for one in lines), encoding="utf-8")

    def add(self, call: Call) -> None:
        """Write a call; it is on disk when this returns."""
        with self.path.open("a", encoding="utf-8") as file:
            file.write(_line(asdict(call)))
        self.calls.append(call)

    @property
    def done(self) -> set[tuple[str, int]]:
        """(system, place of the context) of every call."""
        return {(call.system, call.context) for call in self.calls}

    def _read(self, settings: dict[str, Any]) -> list[Call]:
        with self.path.open(encoding="utf-8", errors="replace", newline="\n") as file:
            lines = file.readlines()  # at line feeds alone: a reply may hold other line breaks
        try:
            head = json.loads(lines[0])
            held, version = head["settings"], head.get("schema_version", 1)  # the first ones did not tell
        except (IndexError, ValueError, KeyError, TypeError) as error:
            raise DataError(self.path, "holds no timings; delete it, or --latency.on_existing=overwrite", 1) from error
        if version != SCHEMA_VERSION:
            told = f"timings of schema version {version}, this release reads {SCHEMA_VERSION}"
            raise DataError(self.path, f"{told}; --latency.on_existing=overwrite measures again", 1)
        here = json.loads(_line(settings))
        clashes = [
            f"{name}: {'the file' if name in held else 'this call'} alone has it"
            for name in sorted(held.keys() ^ here.keys())
        ]
        there, this = ({name: side[name] for name in held.keys() & here.keys()} for side in (held, here))
        clashes += differences(there, this, "the file", "this call")
        if clashes:
            listed = "\n  ".join(clashes)
            raise ConfigError(
                f"{self.path} holds timings of other settings:\n  {listed}\nMeasure all systems again, side by side, "
                "with --latency.on_existing=overwrite"
            )
        calls = []
        for number, line in enumerate(lines[1:], start=2):
            if not line.endswith("\n"):
                continue
            try:
                calls.append(_call(json.loads(line), settings))
            except (ValueError, TypeError) as error:
                told = f"damaged ({error}); --latency.on_existing=overwrite measures again"
                raise DataError(self.path, told, number) from error
        return calls


def _call(record: Any, settings: dict[str, Any]) -> Call:
    """Return a call of one of the systems that are measured.

    Raises:
        ValueError: it is none.
        TypeError: it lacks a field.
    """
    call = Call(**record)
    numbers = (call.context, call.seconds, *call.stages.values()) if isinstance(call.stages, dict) else (None,)
    if call.system not in settings or not all(isinstance(one, int | float) for one in numbers):
        raise ValueError(f"no timed call of a system that is measured: {str(record)[:80]}")
    return call


def _line(record: dict[str, Any]) -> str:
    return json.dumps(record, ensure_ascii=False, allow_nan=False, default=str) + "\n"
