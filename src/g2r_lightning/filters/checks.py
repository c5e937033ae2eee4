"""Ranges of filters' settings, with the one form of complaint."""

from __future__ import annotations

from g2r_lightning.errors import ConfigError


def require(holds: bool, owner: str, setting: str, value: object, remedy: str) -> None:
    """Refuse a setting unless it holds.

    Raises:
        ConfigError: names filter, setting, value and what would do.
    """
    if not holds:
        raise ConfigError(f"{owner}: {setting}={value}: {remedy}")
