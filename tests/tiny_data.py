"""A folder laid out like ``G2R_DATA``, in every published form, with dialogues of random words."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

from tiny import WORDS, write_dialogues

PLAIN = (
    "convai2/train_part", "convai2/personachat_test", "blended_skill_talk/valid", "blended_skill_talk/test",
    "wizard_of_wikipedia/valid", "wizard_of_wikipedia/test", "extra/cmu_dog_train", "extra/cmu_dog_valid",
    "extra/esconv_train", "extra/esconv_valid", "extra/msc_session2_valid", "extra/msc_session3_valid",
    "extra/msc_session4_valid", "extra/msc_session5_valid", "extra/topical_chat_valid_freq",
    "extra/topical_chat_valid_rare", "extra/wizard_of_internet_valid",
)  # fmt: skip


def write_data(folder: Path) -> Path:
    """Write all the files that the experiments read."""
    for name in PLAIN:
        count = 24 if name.endswith("test") else 3  # an evaluation set needs 20 responses for its candidate lists
        write_dialogues(folder / f"{name}.jsonl", count=count, dataset=name.replace("/", "_"))
    for split in ("train", "valid", "test"):
        _write(folder / f"empathetic_dialogues/{split}.csv", _empathetic(split))
    for split in ("train", "validation"):
        said = ["".join(f"{turn} __eou__ " for turn in turns) for turns in _dialogues(f"daily {split}")]
        _write(folder / f"dailydialog/dialogues_{split}.txt", said)
    for name in ("train_sample", "valid_self_original_no_cands"):
        _write(folder / f"convai2/{name}.txt", _convai2(name))
    for split in ("valid", "test"):
        records = [_blended(turns) for turns in _dialogues(f"blended {split}", turns=6)]
        _write(folder / f"blended_skill_talk/{split}.json", [json.dumps(records)])
    contexts = [json.dumps(turns[:3]) for turns in _dialogues("contexts")]
    _write(folder / "blended_skill_talk/bst_test_dialogues_200.json", contexts)
    _write_release(folder / "g2r")
    return folder


def _dialogues(name: str, count: int = 8, turns: int = 5) -> list[list[str]]:
    draw = random.Random(name)
    return [[" ".join(draw.sample(WORDS, draw.randint(3, 7))) for _ in range(turns)] for _ in range(count)]


def _empathetic(split: str) -> list[str]:
    rows = ["conv_id,utterance_idx,context,prompt,speaker_idx,utterance,selfeval,tags"]
    for number, turns in enumerate(_dialogues(f"empathetic {split}")):
        for place, text in enumerate(turns, start=1):
            rows.append(
                f"hit:{number}_conv:{number},{place},sad,a bad day,{place % 2},{text.replace(',', '_comma_')},,"
            )
    return rows


def _convai2(name: str) -> list[str]:
    lines = []
    for turns in _dialogues(name, turns=6):
        said = ["your persona: i like tea.", "your persona: i have a dog."]
        said += [f"{turns[i]}\t{turns[i + 1]}" for i in range(0, 6, 2)]
        lines += [f"{number} {text}" for number, text in enumerate(said, start=1)]
    return lines


def _blended(turns: list[str]) -> dict[str, Any]:
    spoken = [[place % 2, text] for place, text in enumerate(turns[2:])]
    others = [text for other in _dialogues("lists", count=3) for text in other]
    return {
        "personas": [["i sail."], ["i read."]], "context_dataset": "wizard_of_wikipedia", "additional_context": "Tea",
        "free_turker_utterance": turns[0], "guided_turker_utterance": turns[1], "dialog": spoken,
        "label_candidates": [[text, *others] for speaker, text in spoken if speaker == 1],
    }  # fmt: skip


def _write_release(folder: Path) -> None:
    lines, responses = [], []
    for first, second, original, *replies in _dialogues("release", count=20):
        for source, text in [("original", original), *(("blender", reply) for reply in replies)]:
            scores = {"ll": -len(text) / 20, "mi": len(text) / 10}
            record = {"context": [first, second], "response": text, "source": source, "score_infos": scores}
            lines.append(json.dumps(record))
            responses.append((source, text))
    _write(folder / "bst_data_level_g2r_dialogue.jsonl", lines)
    _write(folder / "bst_data_level_g2r_responses.txt", [text for _, text in responses])
    _write(folder / "bst_original_responses.txt", [text for source, text in responses if source == "original"])


def _write(path: Path, lines: list[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
