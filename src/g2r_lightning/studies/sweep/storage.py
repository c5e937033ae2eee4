"""A study's state in Optuna's storage: a journal file by default, which any number of processes append to.

The runs' folders hold everything that cost time, so a lost storage loses nothing: the same command finds the finished
runs and only writes down again what they found.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from g2r_lightning.errors import ConfigError
from g2r_lightning.extras import extra
from g2r_lightning.paths import alone_in, is_held, writable_place
from g2r_lightning.studies.sweep.plan import Plan

SPEC = "g2r_spec"
MISSING = "nothing"


def open_study(plan: Plan) -> Any:
    """Begin a study, or join the one that is there.

    Returns:
        The ``optuna.Study``.

    Raises:
        ConfigError: the storage is damaged, or its study has other settings (names both).
    """
    with extra("studies"):
        import optuna
        from sqlalchemy.exc import SQLAlchemyError
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    with alone_in(plan.folder, wait=True):
        try:
            study = optuna.create_study(
                storage=_storage(plan.storage), study_name=plan.name, direction=plan.direction, load_if_exists=True,
                pruner=_pruner(plan),
            )  # fmt: skip
            there = study.user_attrs.get(SPEC)
            study.get_trials(deepcopy=False)
        except ModuleNotFoundError as error:
            raise ConfigError(f"storage={plan.storage}: its driver is missing ({error})") from error
        except (
            ValueError, KeyError, IndexError, TypeError, AssertionError, OSError, SQLAlchemyError,
            optuna.exceptions.OptunaError,
        ) as error:  # fmt: skip
            said = " ".join(str(error).split())[:200]
            raise ConfigError(
                f"storage={plan.storage}: cannot be read ({type(error).__name__}: {said}). If it is damaged, move it "
                "away and give the same command again: finished runs are found in their folders and not repeated"
            ) from error
        here = json.loads(json.dumps(plan.spec(), default=str))
        if there is not None:
            refuse_other(there, here, plan)
        if there != here:
            study.set_user_attr(SPEC, here)
    return study


def refuse_other(there: Mapping[str, Any], here: Mapping[str, Any], plan: Plan) -> None:
    """Refuse to go on with a study that was begun otherwise. More seeds or drawn points than it had are welcome.

    Raises:
        ConfigError: names every setting that differs, as it is there and here.
    """
    clashes = []
    for key in dict.fromkeys([*there, *here]):
        old, new = there.get(key, MISSING), here.get(key, MISSING)
        if key in ("factors", "experiment") and isinstance(old, dict) and isinstance(new, dict):
            clashes += [
                f"{name}: there {_said(old.get(name, MISSING))}, here {_said(new.get(name, MISSING))}"
                for name in dict.fromkeys([*old, *new])
                if old.get(name, MISSING) != new.get(name, MISSING)
            ]
        elif old != new and not _grown(key, old, new, plan):
            clashes.append(f"{key}: there {_said(old)}, here {_said(new)}")
    if clashes:
        listed = "\n  ".join(clashes)
        raise ConfigError(
            f"{plan.folder} holds a study that was begun otherwise:\n  {listed}\n"
            "Give it the same settings (seeds, and trials that are drawn, may grow), or choose another --name"
        )


def _grown(key: str, old: Any, new: Any, plan: Plan) -> bool:
    if key == "seeds":
        return bool(new[: len(old)] == old)
    if key == "trials":
        return plan.sampler != "grid" and bool(new > old)
    return False


def _said(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _storage(place: str) -> Any:
    """Return Optuna's storage for a file or the URL of a database."""
    import optuna

    if "://" in place:
        return optuna.storages.RDBStorage(place, engine_kwargs={"connect_args": {"timeout": 60}} if
                                          place.startswith("sqlite") else None)  # fmt: skip
    from optuna.storages.journal import JournalFileBackend

    path = writable_place(Path(place).expanduser())
    lock = _journal_lock(path)
    lock.acquire()
    try:
        _cut_torn_line(path)
    finally:
        lock.release()
    return optuna.storages.JournalStorage(JournalFileBackend(str(path), lock_obj=lock))


def _journal_lock(path: Path) -> Any:
    """Return what keeps two processes from appending to a journal at once.

    Optuna's own locks are files, which a killed process leaves; the next one waits for half a minute before it takes
    them for left over. The system takes a lock from a killed process at once. Where it knows none, Optuna's serves.
    """
    from optuna.storages.journal import JournalFileSymlinkLock

    place = path.with_name(f".{path.name}.lock")
    with alone_in(place, wait=True):
        return JournalLock(place) if is_held(place) else JournalFileSymlinkLock(str(path))


class JournalLock:
    """A lock of Optuna's form (``BaseJournalFileLock``) that the system keeps: no killed process holds it.

    A thread that holds it may ask for it again: a signal can come between asking and using.

    Args:
        place: a folder, made for it.
    """

    def __init__(self, place: Path) -> None:
        self._place = place
        self._held: dict[int, ExitStack] = {}

    def acquire(self) -> bool:
        """Wait for the lock and hold it."""
        if threading.get_ident() not in self._held:
            stack = ExitStack()
            stack.enter_context(alone_in(self._place, wait=True))
            self._held[threading.get_ident()] = stack
        return True

    def release(self) -> None:
        """Let go of it."""
        stack = self._held.pop(threading.get_ident(), None)
        if stack is not None:
            stack.close()


def _cut_torn_line(path: Path) -> None:
    """Take off the half of a last line that a power cut leaves: it never counted, and would spoil the next one."""
    if not path.is_file():
        return
    content = path.read_bytes()
    if content and not content.endswith(b"\n"):
        with path.open("r+b") as file:
            file.truncate(content.rfind(b"\n") + 1)


def _pruner(plan: Plan) -> Any:
    """Return the pruner; only runs that report values are judged or count."""
    import optuna

    after = plan.settings.prune_after
    if plan.settings.pruner == "median":
        return optuna.pruners.MedianPruner(n_startup_trials=0, n_warmup_steps=after, n_min_trials=4)
    if plan.settings.pruner == "halving":
        return optuna.pruners.SuccessiveHalvingPruner(min_resource=after)
    return optuna.pruners.NopPruner()
