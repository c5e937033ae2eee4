"""Where things are: files that ship inside the package, and files that appear whole or not at all."""

from __future__ import annotations

import errno
import glob
import os
import platform
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from importlib import resources
from pathlib import Path, PurePosixPath, PureWindowsPath

from g2r_lightning.errors import G2RError

PACKAGE_PREFIX = "package:"
FULL = "check permissions and free space, or choose another place"
_TROUBLES = (
    errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO, errno.ENAMETOOLONG,
    errno.EMFILE, errno.ENFILE,
)  # fmt: skip
_WORDS = (
    "no space left", "disk quota exceeded", "file too large", "read-only file system", "permission denied",
    "input/output error", "requested and ", "os error 28", "write error", "write failed", "error writing",
)  # fmt: skip
"""What libraries that write files themselves say of a full disk: numpy, safetensors, faiss, torch."""
_FULL_WORDS = (
    "no space left",
    "disk quota exceeded",
    "file too large",
    "requested and ",
    "os error 28",
    "write failed",
)


def resolve_path(path: str | Path) -> Path:
    """Return the path, with ``package:sample/...`` pointing into the installed package.

    ``.`` and ``..`` become what they stand for: what is written beside a folder bears its name.

    >>> resolve_path("package:sample").name, resolve_path(".") == Path.cwd()
    ('sample', True)
    """
    text = str(path)
    if text.startswith(PACKAGE_PREFIX):
        return Path(str(resources.files("g2r_lightning"))) / text.removeprefix(PACKAGE_PREFIX)
    path = Path(text).expanduser()
    return path if path.name not in ("", "..") else path.resolve()


def inside(folder: Path, name: str) -> Path:
    """Return the path of a file that a manifest names, which must lie in the manifest's folder.

    A folder may come from anywhere. Whatever its manifest says, nothing outside of it is read or replaced: no absolute
    path, no ``..``, no symbolic link that leads out.

    Raises:
        G2RError: it lies elsewhere.
    """
    parts = (*PurePosixPath(name).parts, *PureWindowsPath(name).parts)
    path = folder / name
    strange = not name or PureWindowsPath(name).is_absolute() or PurePosixPath(name).is_absolute() or ".." in parts
    try:
        strange = strange or not path.resolve().is_relative_to(folder.resolve())
    except (ValueError, OSError):  # a null byte, half of a character, a name too long
        strange = True
    if strange:
        raise G2RError(f"{folder}: its manifest names {name!r}, which lies outside of it; do not use this folder")
    return path


def disk_trouble(error: Exception) -> str | None:
    """Return what to tell of an error that a full or forbidden disk caused, ``None`` for any other.

    An error that a library raised from such a one is such a one.
    """
    if isinstance(error, OSError) and error.errno in _TROUBLES:
        place = f"{error.filename}: " if error.filename is not None else ""
        return f"{place}{error.strerror}; {FULL}, then run the same command again"
    told = str(error)
    known = isinstance(error, OSError | RuntimeError | ValueError) or type(error).__name__ == "SafetensorError"
    if known and any(words in told.lower() for words in _WORDS):
        return f"{told}; {FULL}, then run the same command again"
    return disk_trouble(error.__cause__) if isinstance(error.__cause__, Exception) else None


def disk_is_full(error: BaseException) -> bool:
    """Whether an error, or one that it was raised from, says that nothing more goes onto the disk.

    >>> disk_is_full(OSError(errno.ENOSPC, "No space left on device")), disk_is_full(OSError(errno.EACCES, "no"))
    (True, False)
    """
    known: BaseException | None = error
    while known is not None:
        if isinstance(known, OSError) and known.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            return True
        if any(words in str(known).lower() for words in _FULL_WORDS):
            return True
        known = known.__cause__ or known.__context__
    return False


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Give a temporary neighbour of ``path`` to write to; it takes the name when the block ends without an error.

    The bytes are on disk before the name is, so a power cut leaves either the old file or the whole new one.

    Raises:
        G2RError: the file cannot be written: no permission, a full disk, a folder of that name.
    """
    here = f".{path.name}.{platform.node()}"  # machines that share a drive may have the same process numbers
    temporary = path.with_name(f"{here}.{os.getpid()}.{uuid.uuid4().hex[:6]}.tmp")
    try:
        writable_place(path)
        for left_over in path.parent.glob(f"{glob.escape(here)}.*.tmp"):
            if not _lives(left_over.name.split(".")[-3]):
                left_over.unlink(missing_ok=True)
        yield temporary
        flush(temporary)
        temporary.replace(path)
        flush(path.parent)
    except OSError as error:
        raise G2RError(f"{path}: cannot be written ({error.strerror or error}); {FULL}") from error
    finally:
        with suppress(OSError):  # a file in the place of the folder, which is what the error above is about
            temporary.unlink(missing_ok=True)


def _lives(number: str) -> bool:
    """Whether a process of this machine is there still; always, where asking would disturb it (Windows)."""
    if os.name == "nt":
        return True
    try:
        os.kill(int(number), 0)
    except (ProcessLookupError, ValueError):
        return False
    except OSError:  # somebody else's
        return True
    return True


def flush(path: Path) -> None:
    """Let a file or folder reach the disk; not every system can be asked to for a folder.

    Raises:
        OSError: a file cannot be written.
    """
    with suppress(OSError) if path.is_dir() else nullcontext():
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


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


def missing_folders(folder: Path) -> list[Path]:
    """Return the folder and those above it that are not there, the innermost first: who makes them may undo it.

    >>> missing_folders(Path("."))
    []
    """
    return [place for place in (folder, *folder.parents) if not os.path.lexists(place)]


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
    busy = False
    try:  # around the taking too: a signal behind it would leave a lock that this very process waits for
        try:
            import fcntl

            folder.mkdir(parents=True, exist_ok=True)
            handle = os.open(folder, os.O_RDONLY)
            fcntl.flock(handle, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
            busy = not os.path.samestat(os.fstat(handle), folder.stat())  # it was replaced since it was opened
        except BlockingIOError:
            busy = True
        except (ImportError, OSError):  # what is wrong with the folder itself is told by who writes into it
            pass
        if busy:
            raise G2RError(f"{folder}: another process is writing into it; wait for its end, or stop it")
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

    Whoever looks sees the old content or the new; a block that raises, or a process that is killed, leaves the old
    content as it was. What a killed process left of its own attempt goes.

    Raises:
        G2RError: another process is making this folder, or it cannot be written.
    """
    folder = folder.resolve() if folder.is_symlink() else folder  # the link goes on leading to it
    _tidy(folder)
    mark = uuid.uuid4().hex[:8]
    fresh, old = (folder.with_name(f".{folder.name}-{state}-{mark}") for state in ("new", "old"))
    try:
        fresh.mkdir(parents=True)
    except OSError as error:
        why = disk_trouble(error) or error.strerror
        raise G2RError(f"{folder}: cannot be written ({why}); choose another place") from error
    try:
        with alone_in(fresh):
            yield fresh
            for path in (*fresh.rglob("*"), fresh):
                flush(path)
            if folder.exists() and not _exchanged(fresh, folder):
                folder.replace(old)
            if fresh.exists() and not folder.exists():
                fresh.replace(folder)
            flush(folder.parent)
    except OSError as error:
        if (told := disk_trouble(error)) is None:
            raise
        raise G2RError(f"{folder}: cannot be written ({told})") from error
    finally:
        shutil.rmtree(fresh, ignore_errors=True)  # the old content, where the two were exchanged
        shutil.rmtree(old, ignore_errors=True)


def discard_folder(folder: Path) -> None:
    """Remove a folder of work that has served: it goes in one step, so that a kill leaves no half of it to go on from.

    What a process that was killed here before left goes too.

    Args:
        folder: ours; one that is not there is no error.
    """
    if folder.is_dir():
        folder.replace(folder.with_name(f".{folder.name}-gone-{uuid.uuid4().hex[:8]}"))
    for gone in _marked(folder, "gone"):
        shutil.rmtree(gone, ignore_errors=True)


def _marked(folder: Path, state: str) -> list[Path]:
    """Return the folders beside one that stand for a state of it."""
    return list(folder.parent.glob(f".{glob.escape(folder.name)}-{state}-*"))


def _tidy(folder: Path) -> None:
    """Remove what killed processes left of a folder's making; give its old content back where it has none.

    Raises:
        G2RError: another process is making this folder.
    """
    for old in _marked(folder, "old"):
        if folder.exists():
            shutil.rmtree(old, ignore_errors=True)
        else:  # killed between two renames
            old.replace(folder)
    for left_over in _marked(folder, "new"):
        with alone_in(left_over):
            shutil.rmtree(left_over, ignore_errors=True)


def _exchanged(left: Path, right: Path) -> bool:
    """Let two folders take each other's name in one step; ``False`` where the system cannot (Linux can)."""
    import ctypes

    here, exchange = -100, 2  # AT_FDCWD, RENAME_EXCHANGE
    try:
        call = ctypes.CDLL(None, use_errno=True).renameat2
    except (OSError, AttributeError, TypeError):
        return False
    call.argtypes = (ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_uint)
    return bool(call(here, os.fsencode(left), here, os.fsencode(right), exchange) == 0)
