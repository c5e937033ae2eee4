"""Where things are: files that ship inside the package, and files that appear whole or not at all."""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib import resources
from pathlib import Path

from g2r_lightning.errors import G2RError

PACKAGE_PREFIX = "package:"


def resolve_path(path: str | Path) -> Path:
    """Return the path, with ``package:sample/...`` pointing into the installed package.

    >>> resolve_path("package:sample").name
    'sample'
    """
    text = str(path)
    if text.startswith(PACKAGE_PREFIX):
        return Path(str(resources.files("g2r_lightning"))) / text.removeprefix(PACKAGE_PREFIX)
    return Path(text).expanduser()


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Give a temporary neighbour of ``path`` to write to; it takes the name when the block ends without an error.

    The bytes are on disk before the name is, so a power cut leaves either the old file or the whole new one.

    Raises:
        G2RError: the file cannot be written: no permission, a full disk, a folder of that name.
    """
    # two machines that share a drive may have the same process number
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{uuid.uuid4().hex[:6]}.tmp")
    try:
        writable_place(path)
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        raise G2RError(
            f"{path}: cannot be written ({error.strerror or error}); check permissions and free space, or choose "
            "another place"
        ) from error
    finally:
        with suppress(OSError):  # a file in the place of the folder, which is what the error above is about
            temporary.unlink(missing_ok=True)


def writable_place(path: Path) -> Path:
    """Return the path after making the folder that it will stand in; long work ahead can be refused at its start.

    Raises:
        G2RError: the folder cannot be made, or the path is a folder itself.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise G2RError(
            f"{path}: cannot make the folder {path.parent} ({error.strerror}); choose another place"
        ) from error
    if path.is_dir():
        raise G2RError(f"{path}: this is a folder; name a file inside it")
    return path


@contextmanager
def alone_in(folder: Path, wait: bool = False) -> Iterator[None]:
    """Keep other processes that ask for the same out of a folder, which is made; a killed process lets go of it.

    Where the system or the file system knows no such locks (Windows, some network drives), nobody is kept out.

    Args:
        folder: the folder.
        wait: wait until the other process is out of it, instead of the error.

    Raises:
        G2RError: another process is in it.
    """
    handle: int | None = None
    try:
        import fcntl

        folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(folder, os.O_RDONLY)
        fcntl.flock(handle, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        assert handle is not None
        os.close(handle)
        raise G2RError(f"{folder}: another process is writing into it; wait for its end, or stop it") from error
    except (ImportError, OSError):  # what is wrong with the folder itself is told by who writes into it
        pass
    try:
        yield
    finally:
        if handle is not None:
            with suppress(OSError):  # processes forked meanwhile have the handle too, and would keep the lock
                fcntl.flock(handle, fcntl.LOCK_UN)
            os.close(handle)


def is_held(folder: Path) -> bool | None:
    """Whether a process is :func:`alone_in` a folder; ``None`` where there is no folder or it knows no such locks."""
    try:
        import fcntl

        handle = os.open(folder, os.O_RDONLY)
    except (ImportError, OSError):
        return None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return None
    finally:
        os.close(handle)
    return False


@contextmanager
def replaced_folder(folder: Path) -> Iterator[Path]:
    """Give an empty folder to write into, which takes the place of ``folder`` when the block ends well.

    Whoever looks sees the old content or the new, but for the instant between two renames; a block that raises
    leaves the old content as it was. What a killed process left of its own attempt goes.
    """
    for left_over in folder.parent.glob(f".{folder.name}-new-*"):
        shutil.rmtree(left_over, ignore_errors=True)
    mark = uuid.uuid4().hex[:8]
    fresh = folder.with_name(f".{folder.name}-new-{mark}")
    old = folder.with_name(f".{folder.name}-old-{mark}")
    fresh.mkdir(parents=True)
    try:
        yield fresh
        if folder.exists():
            folder.replace(old)
        fresh.replace(folder)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)
