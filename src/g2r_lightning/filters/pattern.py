"""A regular expression that no reply may match."""

from __future__ import annotations

import time

from g2r_lightning.errors import ConfigError
from g2r_lightning.extras import extra
from g2r_lightning.filters.base import ReplyFilter, Setting, WrittenReply
from g2r_lightning.filters.checks import require

BUDGET_S, SLOW_S = 60.0, 0.01


class Pattern(ReplyFilter):
    """Drop a reply in which an expression matches anywhere.

    Args:
        pattern: in Python's syntax, as the ``regex`` package reads it; ``^`` and ``$`` anchor it.
        ignore_case: match letters of either case.
        timeout_s: seconds for one reply. What takes longer stops the run with an error instead of hanging it; it is
            neither kept nor dropped, since that would depend on the machine's speed. An expression that stays below
            it on each text, but takes :data:`SLOW_S` on average, stops the run after :data:`BUDGET_S`.

    Raises:
        ConfigError: the expression is invalid.
    """

    # `regex` rather than RE2: it is there already (nltk brings it), reads what users know from `re` (look-around,
    # letters of all scripts in \w and \b; RE2 knows neither, and would silently miss "café" for \bcafé\b), and has a
    # timeout, which `re` lacks. RE2's linear time is the better guarantee, for a poorer language.

    def __init__(self, pattern: str, ignore_case: bool = True, timeout_s: float = 1.0) -> None:
        with extra("filters"):
            import regex
        require(timeout_s > 0, self.name, "timeout_s", timeout_s, "use more than 0 seconds")
        require(bool(pattern), self.name, "pattern", repr(pattern), "an empty expression matches every reply")
        self.pattern = pattern
        self.ignore_case = ignore_case
        self.timeout_s = timeout_s
        self._texts, self._seconds = 0, 0.0
        try:
            self._compiled = regex.compile(pattern, regex.IGNORECASE if ignore_case else 0)
        except regex.error as error:
            raise ConfigError(f"{self.name}: pattern={pattern!r}: {error}; correct the expression") from error

    def drops(self, reply: WrittenReply) -> bool:
        """Whether the expression matches.

        Raises:
            ConfigError: that takes longer than the timeout.
        """
        return self.matches(reply.text, f"one reply to {reply.example.id}")

    def matches(self, text: str, told: str) -> bool:
        """Whether the expression matches a text.

        Args:
            text: the text.
            told: how an error names it.

        Raises:
            ConfigError: that takes longer than the timeout.
        """
        begun = time.perf_counter()
        try:
            found = self._compiled.search(text, timeout=self.timeout_s) is not None
        except TimeoutError as error:
            raise ConfigError(
                f"{self.name}: pattern={self.pattern!r} took more than {self.timeout_s} s on {told}: nested "
                "repetitions such as (a+)+ do that; write (?>...) or a++ for what need not be tried again, or raise "
                "timeout_s"
            ) from error

        self._texts += 1
        self._seconds += time.perf_counter() - begun
        if self._seconds > max(BUDGET_S, SLOW_S * self._texts):
            raise ConfigError(
                f"{self.name}: pattern={self.pattern!r} took {self._seconds:.0f} s on {self._texts} texts: write it so "
                "that it fails early, (?>...) or a++ for what need not be tried again"
            )
        return found

    def settings(self) -> dict[str, Setting]:
        """Return the expression; the timeout decides nothing."""
        return {"pattern": self.pattern, "ignore_case": self.ignore_case}
