"""A run's configuration ends with a checksum of what stands above it.

A digit of ``config.yaml`` that changed on the disk is another experiment, under the old one's name: another seed draws
other candidate lists, and nothing else would tell. Whoever changes the file on purpose takes the last line out.
"""

from __future__ import annotations

import hashlib

MARK = "# sha256 of the above (take this line out when you change the file): "


def sealed_yaml(text: str) -> str:
    """Return a configuration with its checksum."""
    return f"{text.rstrip()}\n{MARK}{_checksum(text)}\n"


def unsealed_yaml(text: str) -> str:
    """Return a configuration after a look at its checksum, where there is one.

    Raises:
        ValueError: it is not as it was written.
    """
    if MARK[:22] not in text and MARK[22:] not in text:  # a damaged one still has one of its halves
        return text
    above, _, last = text.rstrip("\n").rpartition("\n")
    if last != MARK + _checksum(above):
        raise ValueError("changed since it was written; if that was on purpose, take out its last line")
    return above + "\n"


def _checksum(text: str) -> str:
    return hashlib.sha256(text.rstrip().encode()).hexdigest()
