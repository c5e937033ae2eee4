"""Libraries that only some settings need: imported where they are used, named in the error where they are missing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from g2r_lightning.errors import ConfigError


@contextmanager
def extra(name: str) -> Iterator[None]:
    """Import within this block what the extra ``name`` of ``setup.cfg`` installs.

    Raises:
        ConfigError: it is not installed; says how to.

    >>> with extra("filters"):
    ...     import no_such_library
    Traceback (most recent call last):
        ...
    g2r_lightning.errors.ConfigError: no_such_library is not installed: pip install 'g2r-lightning[filters]'
    """
    try:
        yield
    except ModuleNotFoundError as error:
        raise ConfigError(f"{error.name} is not installed: pip install 'g2r-lightning[{name}]'") from error
