"""What tells who and where somebody is, learned by heart from the training data or made up: no reply needs it.

Numbers in dialogues are years, prices, times and scores far more often than phone numbers, so each kind is held to more
than its looks: a phone number to its country's numbering plan, a card number to its length and check digit.

A local number without its area code ("256-7797") looks like a range of numbers, and passes; where that matters, add a
:class:`~g2r_lightning.filters.pattern.Pattern`. Of 54,589 turns of DailyDialog, Wizard of Wikipedia and other published
sets 10 are dropped, each for a phone number.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from typing import Literal

from g2r_lightning.errors import ConfigError
from g2r_lightning.extras import extra
from g2r_lightning.filters.base import ReplyFilter, Setting, WrittenReply
from g2r_lightning.filters.checks import require

Kind = Literal["email", "phone", "card"]

# Each part is bounded, and the first cannot start within a word: time grows with the text's length alone.
_EMAIL = re.compile(r"(?<![\w.+-])[\w.+-]{1,64}@(?:[\w-]{1,63}\.){1,5}[^\W\d_]{2,24}(?!\w)")
_TOKENISED_EMAIL = re.compile(r"(?<![\w.+-])[\w.+-]{1,64} @ [\w-]{1,63} \. (?:com|net|org|edu|gov|info|io|co|uk|de)\b")
_DIGIT_GROUPS = re.compile(r"\d+(?:[ \u00a0-]\d+)*")
_CARD_PREFIX = re.compile(
    r"2[2-7]|[3-6]"
)  # ISO/IEC 7812: what Mastercard, American Express, Visa and the others begin with
_CARD_LENGTHS = range(13, 20)
_CARD_GROUP = 3
"""Least digits of a group that a card's number is written in: what is counted or listed has fewer."""


class PersonalData(ReplyFilter):
    """Drop a reply with an e-mail address, a phone number or a card number.

    Args:
        kinds: which of ``email``, ``phone`` and ``card``.
        region: country whose way of writing phone numbers is looked for, as two letters (``US``, ``DE``); ``None``
            looks for international ones alone, ``+49 ...``.

    Raises:
        ConfigError: no kinds, or an unknown kind or region.
    """

    def __init__(self, kinds: Sequence[Kind] = ("email", "phone", "card"), region: str | None = "US") -> None:
        finders: dict[str, Callable[[str], bool]] = {"email": has_email, "phone": self._has_phone, "card": has_card}
        require(bool(kinds), self.name, "kinds", list(kinds), "name at least one of email, phone, card")
        for kind in kinds:
            require(kind in finders, self.name, "kinds", kind, "use email, phone, card")
        self.kinds = sorted(set(kinds))
        self.region = region
        with extra("filters"):
            from phonenumbers import SUPPORTED_REGIONS
        if region is not None and region not in SUPPORTED_REGIONS:
            raise ConfigError(f"{self.name}: region={region}: use a country's two capital letters (US, DE), or null")
        self._finders = [finders[kind] for kind in self.kinds]

    def drops(self, reply: WrittenReply) -> bool:
        """Whether the reply holds one of the kinds."""
        text = unicodedata.normalize("NFKC", reply.text)
        return any(finds(text) for finds in self._finders)

    def settings(self) -> dict[str, Setting]:
        """Return kinds and region."""
        return {"kinds": list(self.kinds), "region": self.region}

    def _has_phone(self, text: str) -> bool:
        """Whether a valid number of the region, or an international one, stands in the text."""
        if sum(character.isdigit() for character in text) < 7:  # emergency numbers and prices; no subscriber has fewer
            return False
        from phonenumbers import Leniency, PhoneNumberMatcher

        return PhoneNumberMatcher(text, self.region, leniency=Leniency.STRICT_GROUPING).has_next()


def has_email(text: str) -> bool:
    """Whether an e-mail address stands in the text, be it tokenised.

    >>> has_email("write to jane.doe@mail.example.org!"), has_email("jane @ gmail . com"), has_email("see you @ home")
    (True, True, False)
    """
    return "@" in text and (_EMAIL.search(text) is not None or _TOKENISED_EMAIL.search(text) is not None)


def has_card(text: str) -> bool:
    """Whether 13 to 19 digits, in groups or not, have a payment card's first digit and its check digit (Luhn).

    >>> has_card("it is 4111 1111 1111 1111"), has_card("it is 4111 1111 1111 1112")
    (True, False)
    """
    with extra("filters"):
        from stdnum import luhn
    return any(_CARD_PREFIX.match(digits) and luhn.is_valid(digits) for digits in _long_numbers(text))


def _long_numbers(text: str) -> Iterator[str]:
    """Yield each run of whole digit groups that is as long as a card's number, in ASCII digits."""
    for found in _DIGIT_GROUPS.finditer(text):
        groups = re.split(r"\D", found.group())
        for start in range(len(groups)):
            digits = ""
            for group in groups[start:]:
                if len(group) < _CARD_GROUP:
                    break
                digits += group
                if len(digits) in _CARD_LENGTHS:
                    yield "".join(str(unicodedata.digit(digit)) for digit in digits)
                elif len(digits) >= _CARD_LENGTHS.stop:
                    break
