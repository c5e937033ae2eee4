"""Insults and obscenities in English, by the ``pyobscenity`` library.

It looks for words, through misspellings, look-alike letters and digits for letters, with exceptions for the innocent
words around them. What is hateful without a bad word passes; for that, put a classifier of yours behind a
:class:`~g2r_lightning.filters.base.ReplyFilter`.

Why this library. Measured on the 13,485 turns of Blended Skill Talk's validation split, written by paid volunteers who
had been told to behave, and on 20 made-up offensive lines, three quarters with a bad word; one core, one reply a call:

====================  ===========  =========================  =================  ==============
library               release      turns of BST flagged       offensive flagged  s / 1,000 calls
====================  ===========  =========================  =================  ==============
pyobscenity 0.2       2026-09      2 (0.01%)                  14 of 20           1.1
glin-profanity 4.1    2026         4 (0.03%)                  12 of 20           0.6
better-profanity 0.7  2020-11      115 (0.9%)                 15 of 20           22
alt-profanity-check   2026-09      171 (1.3%) at 0.5          19 of 20           6.6
1.9                                15 (0.1%) at 0.9           15 of 20           0.02 batched
====================  ===========  =========================  =================  ==============

better-profanity has no release since 2020, is slow, and its list holds "god", "kill", "gay" and "omg".
alt-profanity-check finds most, and drops "I have a dog and a pig" (0.98): turns that mention dogs, hate or a shame are
what a student should learn to answer. It also pins one exact scikit-learn, wants Python 3.11 and unpickles its model.
glin-profanity misses spellings that pyobscenity finds, and flags "You must be the luckiest girl on earth".

pyobscenity is young and one person's; its words come from the JavaScript library ``obscenity``. The two it flags
say "pissed" and "damn". Of 20,000 turns of DailyDialog and Wizard of Wikipedia it flags 18, half of them wrongly:
"sex, date of birth, height", somebody called Dick, Wang Fu Jing. ``allow: [sex, dick]`` takes words off its list.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from g2r_lightning.errors import ConfigError
from g2r_lightning.extras import extra
from g2r_lightning.filters.base import ReplyFilter, Setting, WrittenReply

_STRETCHED = re.compile(r"(\w)\1{2,}")


class Offensive(ReplyFilter):
    """Drop a reply with an offensive English word; :class:`~g2r_lightning.filters.block_list.BlockList` adds words.

    Args:
        allow: words of the library's list that may stand, ``[damn, piss]`` say.

    Raises:
        ConfigError: a word of ``allow`` is not on the list; names those that are.
    """

    def __init__(self, allow: Sequence[str] = ()) -> None:
        self.allow = sorted(set(allow))
        self._matcher = _matcher(self.allow)

    def drops(self, reply: WrittenReply) -> bool:
        """Whether the reply holds a word of the list, be it stretched ("shiiiit")."""
        short = _STRETCHED.sub(r"\1", reply.text)
        return self._finds(reply.text) or (short != reply.text and self._finds(short))

    def settings(self) -> dict[str, Setting]:
        """Return the words taken off the list."""
        return {"allow": list(self.allow)}

    def _finds(self, text: str) -> bool:
        return bool(self._matcher.has_match(text))


def _matcher(allow: Sequence[str]) -> Any:
    """Return the library's matcher over its English words without some."""
    with extra("filters"):
        import pyobscenity
        from pyobscenity import english_preset

    words = {container.metadata["originalWord"] for container in english_preset.english_dataset.containers}
    if unknown := sorted(set(allow) - words):
        raise ConfigError(f"Offensive: allow={unknown}: not on the list, which holds {', '.join(sorted(words))}")
    chosen = pyobscenity.Dataset().add_all(english_preset.english_dataset)
    terms = chosen.remove_phrases_if(lambda phrase: phrase.metadata["originalWord"] in allow).build()
    return pyobscenity.RegexMatcher(
        blacklisted_terms=terms["blacklisted_terms"],
        whitelisted_terms=terms["whitelisted_terms"],
        blacklist_transformers=english_preset.english_recommended_blacklist_transformers,
        whitelist_transformers=english_preset.english_recommended_whitelist_transformers,
    )
