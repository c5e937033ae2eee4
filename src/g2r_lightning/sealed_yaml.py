"""A run's configuration begins with a checksum of what stands below it.

A digit of ``config.yaml`` that changed on the disk is another experiment, under the old one's name: another seed draws
other candidate lists, and nothing else would tell. And the head of a YAML file that was cut short is a whole YAML file:
so the checksum stands where a cut leaves it. Whoever changes the file on purpose takes the line out.
"""

from __future__ import annotations

import hashlib

MARK = "# sha256 of what is below (whoever edits it takes this line out): "
LAST = "# sha256 of the above (take this line out when you change the file): "
"""What earlier releases wrote, as the last line."""


def sealed_yaml(text: str) -> str:
    """Return a configuration with its checksum."""
    return f"{MARK}{_checksum(text)}\n{text.rstrip()}\n"


def unsealed_yaml(text: str) -> str:
    """Return a configuration after a look at its checksum, where there is one.

    Raises:
        ValueError: it is not as it was written.
    """
    first, _, below = text.partition("\n")
    cut_within = bool(text) and MARK.startswith(text)
    if cut_within or _resembles(text, MARK):
        if first != MARK + _checksum(below):
            raise ValueError("changed or cut since it was written; if that was on purpose, take out its first line")
        return below
    above, _, last = text.rstrip("\n").rpartition("\n")
    if _resembles(last, LAST):
        if last != LAST + _checksum(above):
            raise ValueError("changed since it was written; if that was on purpose, take out its last line")
        return above + "\n"
    return text


def _resembles(text: str, mark: str) -> bool:
    """Whether a mark stands in a text, damaged perhaps: a changed byte leaves one of its halves."""
    half = len(mark) // 2
    return mark[:half] in text or mark[half:] in text


def _checksum(text: str) -> str:
    return hashlib.sha256(text.rstrip().encode()).hexdigest()
