"""Which of a teacher's replies are worth keeping: small classes, put together in YAML, that each drop one kind.

The section ``filters`` is a list of them; a reply is dropped by the first that objects, and counted under its name, so
that their order decides what the report says and nothing else. None of them changes a text.

- ``base``: :class:`WrittenReply`, :class:`ReplyFilter`, :func:`first_objection`
- ``plain``: :class:`Empty`, :class:`Length`, :class:`Truncated`
- ``duplicates``: :class:`Duplicates` — of the original response, of given candidates, of earlier replies
- ``printable``: :class:`Printable` — control characters and what decoding went wrong left behind
- ``repetition``: :class:`RepeatsContext`, :class:`Repetitive`
- ``block_list``, ``pattern``: :class:`BlockList`, :class:`Pattern` — your own words and expressions
- ``personal_data``: :class:`PersonalData` — e-mail addresses, phone and card numbers
- ``offensive``: :class:`Offensive` — insults and obscenities in English
- ``likelihood``: :class:`LikelihoodFloor` — what the teacher itself finds improbable

``PersonalData``, ``Pattern`` and ``Offensive`` stand on libraries of the extra ``g2r-lightning[filters]``.
"""

from g2r_lightning.filters.base import ReplyFilter, Setting, WrittenReply, first_objection
from g2r_lightning.filters.block_list import BlockList
from g2r_lightning.filters.duplicates import Duplicates
from g2r_lightning.filters.likelihood import LikelihoodFloor
from g2r_lightning.filters.offensive import Offensive
from g2r_lightning.filters.pattern import Pattern
from g2r_lightning.filters.personal_data import PersonalData
from g2r_lightning.filters.plain import Empty, Length, Truncated
from g2r_lightning.filters.printable import Printable
from g2r_lightning.filters.repetition import RepeatsContext, Repetitive

__all__ = [
    "BlockList",
    "Duplicates",
    "Empty",
    "Length",
    "LikelihoodFloor",
    "Offensive",
    "Pattern",
    "PersonalData",
    "Printable",
    "RepeatsContext",
    "Repetitive",
    "ReplyFilter",
    "Setting",
    "Truncated",
    "WrittenReply",
    "first_objection",
]
