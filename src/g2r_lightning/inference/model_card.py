"""The card of an exported student, filled from what its run left behind; a cell without a figure stays empty.

Everything on it comes from ``record.json``, ``results/*.json``, the composed configuration, and notes on licences that
lie beside the data or in the encoder's folder. Nothing is known here that is not there.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from g2r_lightning.paths import resolve_path

LICENCE_FILES = ("LICENSE*", "LICENCE*", "ATTRIBUTION*")
MOST_CHARACTERS = 4000  # of one note
SPLITS = ("train", "validation", "test")
PATENT = "The method (G2R, Kim et al. 2021) is claimed by US 12,443,859 B2: check before you ship it commercially."


@dataclass(frozen=True)
class CardFacts:
    """What a card is filled from.

    Args:
        name: of the run.
        record: its ``record.json``.
        results: ``<set>/<figure>`` -> value, of the exported checkpoint; empty where it was not tested.
        config: the composed configuration.
        student: ``encoder`` and ``text`` settings, as a student describes itself.
        loss: ``alpha`` and ``temperature``.
        separator: between two lines of a context.
        checkpoint: file name.
        routes: ``query`` and ``document``, or ``document`` alone.
        encoder_folder: where the pretrained encoder lies, if it lies in a folder.
    """

    name: str
    record: Mapping[str, Any]
    results: Mapping[str, Any]
    config: Mapping[str, Any]
    student: Mapping[str, Mapping[str, Any]]
    loss: Mapping[str, Any]
    separator: str
    checkpoint: str | None
    routes: Sequence[str]
    encoder_folder: Path | None = None


def model_card(facts: CardFacts) -> str:
    """Return README.md."""
    about = (
        "A retrieval student of g2r_lightning: it finds a reply to a dialogue in a response set, by the dot product of "
        "the context's vector with each response's."
    )
    parts = [
        _front_matter(facts),
        f"# {facts.name}",
        about,
        "## Use",
        _usage(facts),
        "## Student",
        _mapping({**facts.student["encoder"], "name_or_path": _base(facts), "checkpoint": facts.checkpoint}),
        "How it reads texts:",
        _mapping(facts.student["text"]),
        "## Training",
        _mapping(_training(facts)),
        "## Data",
        _data(facts),
        "## Test figures",
        figures_table(facts.results),
        "## Versions",
        _mapping({**facts.record.get("versions", {}), **_of(facts.record, "g2r_lightning", "python", "git")}),
        "## Licence notes",
        PATENT,
        *_notes(facts),
    ]
    return "\n\n".join(parts) + "\n"


def figures_table(results: Mapping[str, Any]) -> str:
    """Return a row a figure and a column a set; cells without a figure are empty."""
    known = {key: value for key, value in results.items() if "/" in key}
    sets = list(dict.fromkeys(key.split("/", 1)[0] for key in known)) or [""]
    names = list(dict.fromkeys(key.split("/", 1)[1] for key in known)) or [""]
    rows = [[name, *(_figure(known.get(f"{own}/{name}")) for own in sets)] for name in names]
    return table(["figure", *sets], rows)


def table(headings: Sequence[str], rows: Sequence[Sequence[str]], rule: str = "---") -> str:
    r"""Return a Markdown table; bars and line breaks inside a cell do not break it.

    >>> print(table(["", "ms"], [["a|b", "3"]], rule="--:"))
    |  | ms |
    | --- | --: |
    | a\|b | 3 |

    Args:
        headings: of the columns.
        rows: cells.
        rule: below the headings but the first: ``--:`` aligns figures.
    """
    lines = [headings, ["---", *[rule] * (len(headings) - 1)], *rows]
    return "\n".join(f"| {' | '.join(map(_cell, line))} |" for line in lines)


def readers(config: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    """Yield (split, name of the set, path) of every data file that a configuration names."""
    data = (config.get("data") or {}).get("init_args") or {}
    for split in SPLITS:
        held = data.get(split) or []
        named = held.items() if isinstance(held, Mapping) else ((split, one) for one in held)
        for name, reader in named:
            path = ((reader or {}).get("init_args") or {}).get("path")
            if path is not None:
                yield split, str(name), str(path)


def licence_notes(folder: Path) -> list[tuple[str, str]]:
    """Return (file name, text) of every licence note that lies in a folder, cut where it is a whole licence."""
    found = sorted({path for pattern in LICENCE_FILES for path in folder.glob(pattern) if path.is_file()})
    texts = [(path.name, path.read_text(encoding="utf-8", errors="replace").strip()) for path in found]
    return [(name, text if len(text) <= MOST_CHARACTERS else f"{text[:MOST_CHARACTERS]} ...") for name, text in texts]


def published_licence(folder: Path) -> str:
    """Return the ``license`` that a model's own card names, or nothing."""
    card = folder / "README.md"
    text = card.read_text(encoding="utf-8", errors="replace") if card.is_file() else ""
    if not text.startswith("---"):
        return ""
    try:
        head = yaml.safe_load(text.split("---", 2)[1])
    except (yaml.YAMLError, IndexError):
        return ""
    return str(head.get("license") or "") if isinstance(head, dict) else ""


def _front_matter(facts: CardFacts) -> str:
    head = {
        "library_name": "sentence-transformers",
        "pipeline_tag": "sentence-similarity",
        "tags": ["sentence-transformers", "dialogue", "retrieval", "g2r"],
    }
    if _on_a_hub(_named_encoder(facts)):
        head["base_model"] = _base(facts)
    return f"---\n{yaml.safe_dump(head, sort_keys=False)}---"


def _usage(facts: CardFacts) -> str:
    text = facts.student["text"]
    if "query" not in facts.routes:
        return (
            "```python\nfrom sentence_transformers import SentenceTransformer\n\n"
            'model = SentenceTransformer("this/folder")\n'
            'vectors = model.encode_document(["a reply", "another"])\n```\n\n'
            "This is a poly-encoder: a context has several vectors, which sentence-transformers does not make, so "
            "`encode_query` is refused. Encode contexts with `g2r_lightning`."
        )
    notes = [line for line, own in (("persona", "persona"), ("knowledge", "knowledge")) if text.get(own) != "none"]
    before = f" Its {' and '.join(notes)} lines stand before the utterances, as lines of their own." if notes else ""
    return (
        "```python\nfrom sentence_transformers import SentenceTransformer\n\n"
        'model = SentenceTransformer("this/folder")\n'
        'dialogue = ["hi!", "hello, do you have pets?"]\n'
        f"context = {json.dumps(facts.separator)}.join(dialogue[-{text['history']}:])\n"
        'replies = ["yes, a dog.", "i like tea."]\n'
        "scores = model.similarity(model.encode_query([context]), model.encode_document(replies))\n```\n\n"
        f"A context is the last {text['history']} utterances, joined by {json.dumps(facts.separator)}.{before} "
        f"Of a context's tokens the last {text['max_context_tokens']} are read, of a response's the first "
        f"{text['max_response_tokens']}, special tokens included. `encode` alone encodes responses."
    )


def _training(facts: CardFacts) -> dict[str, Any]:
    data = facts.record.get("data") or {}
    teacher = data.get("teacher") or {}
    return {
        "loss": f"(1 - alpha) cross-entropy + alpha score transfer, alpha {facts.loss.get('alpha')}, "
        f"temperature {facts.loss.get('temperature')}",
        "teacher": _public(teacher.get("name")),
        "teacher's weights": teacher.get("weights_hash"),
        "prior": data.get("prior"),
        **_of(facts.record, "steps", "seed", "trained"),
        **_of(data, "train_examples", "train_dialogues", "dropped_leaks", "train_hash", "candidates_hash"),
    }


def _data(facts: CardFacts) -> str:
    counts = (facts.record.get("data") or {}).get("evaluation_dialogues") or {}
    rows = [
        [split, name, Path(path).name, _figure(counts.get(f"{split}/{name}")),
         ", ".join(note for note, _ in licence_notes(resolve_path(path).parent))]
        for split, name, path in readers(facts.config)
    ]  # fmt: skip
    return table(["split", "set", "file", "dialogues", "licence note"], rows)


def _notes(facts: CardFacts) -> Iterator[str]:
    """Yield the text of every note on the data, each once, and what the encoder's own card says."""
    licence = published_licence(facts.encoder_folder) if facts.encoder_folder is not None else ""
    yield table(["encoder", "licence"], [[_base(facts), licence]])
    folders = dict.fromkeys(resolve_path(path).parent for _, _, path in readers(facts.config))
    for name, text in dict.fromkeys(note for own in folders for note in licence_notes(own)):
        yield f"From `{name}` beside the data:\n\n" + "\n".join(f"> {line}".rstrip() for line in text.splitlines())


def _base(facts: CardFacts) -> str:
    return _public(_named_encoder(facts)) or ""


def _named_encoder(facts: CardFacts) -> str:
    model = (facts.config.get("model") or {}).get("init_args") or {}
    return str(((model.get("encoder") or {}).get("init_args") or {}).get("name_or_path") or "")


def _on_a_hub(name: str) -> bool:
    return bool(name) and not name.startswith((".", "/", "~", "package:")) and not Path(name).is_dir()


def _public(name: str | None) -> str | None:
    """Return a model's name without the way to a folder on this machine."""
    return Path(name).name if name and name.startswith(("/", "~")) else name


def _of(mapping: Mapping[str, Any], *keys: str) -> dict[str, Any]:
    return {key: mapping.get(key) for key in keys}


def _mapping(values: Mapping[str, Any]) -> str:
    return table(["", ""], [[name, _figure(value)] for name, value in values.items()])


def _figure(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool | str):
        return str(value)
    if isinstance(value, int | float):
        return str(int(value)) if float(value).is_integer() else f"{value:.4f}"
    return json.dumps(value, ensure_ascii=False)


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
