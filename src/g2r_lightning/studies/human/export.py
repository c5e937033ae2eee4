"""From systems' replies to a study: which contexts, which items, which sheets."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from g2r_lightning.dialogue import text_key
from g2r_lightning.errors import ConfigError, G2RError
from g2r_lightning.studies.human.design import sheets_of
from g2r_lightning.studies.human.key import TASKS, Asked, Item, StudyKey, Task
from g2r_lightning.studies.replies import Answered

Context = tuple[str, ...]


@dataclass(frozen=True)
class Study:
    """What is asked of whom.

    Args:
        tasks: ``ssa`` (sensible? specific?) and ``preference`` (which of two replies?).
        pairs: systems that are compared; ``None`` compares each with each.
        contexts: how many, of those that all systems answered; ``None`` takes all.
        raters: how many.
        ratings: judgements an item, each by another rater.
        turns: last utterances of a context that are shown; ``None`` shows all.
        title: of the page.
        seed: of choices and orders.
    """

    tasks: tuple[Task, ...] = TASKS
    pairs: tuple[tuple[str, str], ...] | None = None
    contexts: int | None = 100
    raters: int = 3
    ratings: int = 3
    turns: int | None = None
    title: str = "How good are these replies?"
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse numbers that make no study.

        Raises:
            ConfigError: names the flag.
        """
        for name in ("contexts", "raters", "ratings", "turns"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(f"--{name}={value}: at least 1")
        if self.ratings > self.raters:
            raise ConfigError(
                f"--ratings={self.ratings}: more judgements an item than raters; set --raters={self.ratings}"
            )
        if not self.tasks:
            raise ConfigError(f"--tasks: name at least one of {', '.join(TASKS)}")


def make_study(systems: Mapping[str, Sequence[Answered]], paths: Mapping[str, str], study: Study) -> StudyKey:
    """Return the key of a study, from which its sheets are written.

    Args:
        systems: name -> its replies; the best reply to each context is rated.
        paths: name -> where they come from, for the key.
        study: what is asked of whom.

    Raises:
        ConfigError: there is no system, or one too few for a preference, or a pair names none of them.
        G2RError: no context was answered by all systems.
    """
    if not systems:
        raise ConfigError("name the systems: --systems.NAME=FILE, or --references=runs/NAME for the human responses")
    pairs = _pairs(list(systems), study)
    best = {name: _by_context(answered) for name, answered in systems.items()}
    chosen = _chosen(best, study)
    first, width = next(iter(best.values())), len(str(len(chosen)))
    ids = [f"c{place:0{width}}" for place in range(1, len(chosen) + 1)]
    replies = [{name: answers[context].replies[0] for name, answers in best.items()} for context in chosen]
    items: dict[str, list[Item]] = {}
    sheets: dict[str, dict[str, list[Asked]]] = {}
    identical: list[tuple[str, str, str]] = []
    for task in dict.fromkeys(study.tasks):
        names: list[tuple[str, ...]] = [(name,) for name in systems] if task == "ssa" else [*pairs]
        arms = [[place for place, told in enumerate(replies) if not _identical(told, own)] for own in names]
        items[task], numbers = _items(task, names, arms, ids, replies, study.seed)
        placed = sheets_of(arms, study.raters, study.ratings, study.seed, sides=task == "preference")
        sheets[task] = {
            f"r{rater:02}": [Asked(numbers[unit.arm, unit.context], unit.swapped) for unit in sheet]
            for rater, sheet in enumerate(placed, start=1)
        }
    for pair in pairs:
        identical += [(ids[place], *pair) for place, told in enumerate(replies) if _identical(told, pair)]
    shown = {
        id_: {"dialogue": first[context].dialogue, "utterances": list(first[context].context[-(study.turns or 0) :])}
        for id_, context in zip(ids, chosen, strict=True)
    }
    told = repr((sorted(paths.items()), study, replies)).encode("utf-8", "surrogatepass")
    digest = hashlib.blake2b(told, digest_size=6).hexdigest()
    sources = {name: paths.get(name, "") for name in systems}
    return StudyKey(digest, study.title, study.seed, sources, shown, items, sheets, identical, study.ratings)


def _identical(replies: Mapping[str, str], systems: tuple[str, ...]) -> bool:
    """Whether a pair of systems gave one reply: a tie that nobody needs to be asked about."""
    return len(systems) == 2 and text_key(replies[systems[0]]) == text_key(replies[systems[1]])


def _items(
    task: str,
    names: Sequence[tuple[str, ...]],
    arms: Sequence[Sequence[int]],
    ids: Sequence[str],
    replies: Sequence[Mapping[str, str]],
    seed: int,
) -> tuple[list[Item], dict[tuple[int, int], str]]:
    """Return all items under numbers that tell nothing, and (arm, context) -> number."""
    units = [(arm, context) for arm, own in enumerate(arms) for context in own]
    order = np.random.default_rng([seed, 3, TASKS.index(task)]).permutation(len(units)).tolist()
    width = len(str(len(units)))
    found, numbers = list[Item](), dict[tuple[int, int], str]()
    for number, place in enumerate(order, start=1):
        arm, context = units[place]
        item = f"{task[0]}{number:0{width}}"
        own = names[arm]
        found.append(Item(item, ids[context], own, tuple(replies[context][name] for name in own)))
        numbers[arm, context] = item
    return found, numbers


def _pairs(systems: list[str], study: Study) -> list[tuple[str, str]]:
    if "preference" not in study.tasks:
        return []
    if len(systems) < 2:
        raise ConfigError("a preference needs two systems; name another one, or ask for --tasks='[ssa]' alone")
    pairs = list(combinations(systems, 2)) if study.pairs is None else [*study.pairs]
    for pair in pairs:
        unknown = [name for name in pair if name not in systems]
        if unknown or pair[0] == pair[1]:
            raise ConfigError(f"--pairs: {list(pair)} is no pair of the systems {', '.join(systems)}")
    return pairs


def _by_context(answered: Sequence[Answered]) -> dict[Context, Answered]:
    """Return the answers by what the context says; the first where a context comes twice."""
    found: dict[Context, Answered] = {}
    for one in answered:
        found.setdefault(tuple(text_key(text) for text in one.context), one)
    return found


def _chosen(best: Mapping[str, Mapping[Context, Answered]], study: Study) -> list[Context]:
    """Return the contexts that are rated: drawn by the seed, of as many dialogues as possible, in drawn order."""
    first, *others = best.values()
    shared = [context for context in first if all(context in other for other in others)]
    if not shared:
        counts = ", ".join(f"{name} {len(answers)}" for name, answers in best.items())
        raise G2RError(
            f"no context was answered by all systems (they answered: {counts}); give replies to the same contexts"
        )
    most = len(shared) if study.contexts is None else study.contexts
    if most > len(shared):
        raise ConfigError(f"--contexts={most}: only {len(shared)} contexts were answered by all systems")
    drawn = sorted(shared, key=lambda context: _lot(context, study.seed))
    seen: dict[str, int] = {}
    turn: list[tuple[int, int, Context]] = []
    for context in drawn:
        dialogue = first[context].dialogue
        turn.append((seen.get(dialogue, 0), len(turn), context))
        seen[dialogue] = seen.get(dialogue, 0) + 1
    return [context for _, _, context in sorted(turn, key=lambda each: each[:2])[:most]]


def _lot(context: Context, seed: int) -> bytes:
    told = "\n".join([str(seed), *context]).encode("utf-8", "surrogatepass")
    return hashlib.blake2b(told, digest_size=8).digest()
