"""``clean``: list what this project left under a folder, with its sizes; remove what is named, and nothing else.

    python -m g2r_lightning clean                       lists runs, stores, indexes, encodings, caches and leftovers
    python -m g2r_lightning clean runs/old .cache/...   asks, and removes these (--yes does not ask)
    python -m g2r_lightning clean caches leftovers      removes all of a kind

A thing is renamed before it is removed, so that a stopped removal leaves no half of it that looks whole. What a process
has open is refused, and so is what is not ours or lies outside of the folder.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import logging
import shutil
import sys
import time
import uuid
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from g2r_lightning.checkup.belongings import Belonging, belongings, described
from g2r_lightning.checkup.in_use import users_of
from g2r_lightning.checkup.sizes import size
from g2r_lightning.errors import ConfigError, G2RError

log = logging.getLogger(__name__)
KINDS = {"caches": "cache", "leftovers": "leftover"}
"""What may be named as a whole: it is made again, or good for nothing."""


def clean(arguments: Sequence[str]) -> None:
    """List, or remove.

    Raises:
        G2RError: what is named is not there, not ours, in use, outside of the folder, or could not be removed.
    """
    parser = argparse.ArgumentParser(
        prog="python -m g2r_lightning clean", description=__doc__, allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("names", nargs="*", help="paths as they are listed, or `caches`, `leftovers`")
    parser.add_argument("--root", default=".", help="folder to look under; nothing outside of it is touched")
    parser.add_argument("--yes", action="store_true", help="do not ask before removing")
    parser.add_argument("--json", action="store_true", help="the list as JSON on standard output")
    flags = parser.parse_args(list(arguments))
    root = Path(flags.root)
    if not root.is_dir():
        raise ConfigError(f"--root={root}: no such folder")
    if not flags.names:
        _list(belongings(root), root, flags.json)
        return
    chosen = [one for name in flags.names for one in _named(name, root)]
    chosen = list({one.path.resolve(): one for one in chosen}.values())
    for one in chosen:
        _check_unused(one, root)
    if not chosen:
        log.info("nothing to remove")
    elif flags.yes or _agreed(chosen, root):
        for one in chosen:
            _remove(one, root)


def _named(name: str, root: Path) -> list[Belonging]:
    """Return what a name means.

    Raises:
        ConfigError: nothing of ours, or something outside of the folder.
    """
    if name in KINDS:
        return [one for one in belongings(root) if one.kind == KINDS[name]]
    given = Path(name).expanduser()
    path = given if given.is_absolute() else root / given
    inside, place = root.resolve(), path.resolve()
    if path.is_symlink() or inside not in place.parents:
        raise ConfigError(f"{name}: leads out of {inside}; name something inside of it, or another --root")
    if not path.exists():
        raise ConfigError(f"{name}: there is no such thing in {inside}; `clean` without names lists what there is")
    own = described(place)
    if own is None:
        raise ConfigError(
            f"{name}: neither run, store, index, encoding, cache nor leftover of this project; remove it by other means"
        )
    return [own]


def _check_unused(one: Belonging, root: Path) -> None:
    users = users_of(one.path)
    if users:
        listed = "".join(f"\n  {line}" for line in users[:5])
        raise G2RError(f"{_shown(one.path, root)} is in use:{listed}\nWait for its end, or stop it")


def _agreed(chosen: Sequence[Belonging], root: Path) -> bool:
    """Ask whether all of this may go.

    Raises:
        ConfigError: nobody is there to answer.
    """
    if not sys.stdin.isatty():
        raise ConfigError("nobody to ask: say --yes to remove what is named")
    for one in chosen:
        log.info("  %s %s, %s, %s", one.kind, _shown(one.path, root), size(one.size), one.state)
    sys.stdout.write(f"Remove these {len(chosen)} for good? [y/N] ")
    sys.stdout.flush()
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def _remove(one: Belonging, root: Path) -> None:
    """Remove a thing.

    Raises:
        G2RError: the system refuses it.
    """
    mark = uuid.uuid4().hex[:8]
    doomed = one.path.with_name(f".{one.path.name.lstrip('.')}-old-{mark}")
    try:
        one.path.rename(doomed)
        if doomed.is_dir():
            shutil.rmtree(doomed)
        else:
            doomed.unlink()
    except OSError as error:
        rest = f"; what is left of it lies in {doomed}" if doomed.exists() else ""
        raise G2RError(f"{one.path}: cannot be removed ({error.strerror or error}){rest}; check permissions") from error
    log.info("removed the %s %s (%s)", one.kind, _shown(one.path, root), size(one.size))


def _list(found: Sequence[Belonging], root: Path, as_json: bool) -> None:
    if as_json:
        records = [{**dataclasses.asdict(one), "path": _shown(one.path, root)} for one in found]
        sys.stdout.write(json.dumps(records, indent=2, ensure_ascii=False) + "\n")
        return
    table = Table(title=f"under {root.resolve()}", caption="remove by name: python -m g2r_lightning clean NAME ...")
    for name in ("what", "name", "size", "changed", "state"):
        table.add_column(name, justify="right" if name == "size" else "left", overflow="fold")
    for one in found:
        day = time.strftime("%Y-%m-%d", time.localtime(one.changed))
        table.add_row(one.kind, _shown(one.path, root), size(one.size), day, one.state)
    table.add_section()
    table.add_row("", f"{len(found)} in all", size(sum(one.size for one in found)), "", "")
    Console(file=sys.stdout, highlight=False).print(table)


def _shown(path: Path, root: Path) -> str:
    """Return a path as it can be named again."""
    return str(path.resolve().relative_to(root.resolve()))
