"""Does a pass's memory grow with the data? A tiny teacher over 1,000 and 20,000 contexts.

``python benchmarks/teacher_memory.py``: each pass is a command in a process of its own; its peak resident memory is
what the operating system tells at its end.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from transformers import BartConfig, BartForConditionalGeneration, PreTrainedTokenizerFast

from report import write_report

WORDS = [f"w{number}" for number in range(400)]
YAML = """
data:
  class_path: g2r_lightning.data.DialogueDataModule
  init_args: {train: [{class_path: g2r_lightning.dialogue.readers.JsonlReader, init_args: {path: dialogues.jsonl}}]}
teacher:
  class_path: g2r_lightning.teacher.EncoderDecoderTeacher
  init_args: {name_or_path: teacher, dtype: float32}
sampling: {num_replies: 3, max_tokens: 12}
scoring: {prior: empty}
store: store
trainer: {accelerator: cpu}
"""


def write_teacher(folder: Path) -> None:
    """Write a BART of 64 dimensions with random weights over whole words."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    vocabulary = {word: number for number, word in enumerate(["<pad>", "<s>", "</s>", "<unk>", *WORDS])}
    core = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.Whitespace()
    core.post_processor = processors.TemplateProcessing(single="<s> $A </s>", special_tokens=[("<s>", 1), ("</s>", 2)])
    PreTrainedTokenizerFast(
        tokenizer_object=core, pad_token="<pad>", bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    ).save_pretrained(folder)
    torch.manual_seed(0)
    config = BartConfig(
        vocab_size=len(vocabulary), d_model=64, encoder_layers=1, decoder_layers=1, encoder_attention_heads=2,
        decoder_attention_heads=2, encoder_ffn_dim=64, decoder_ffn_dim=64, max_position_embeddings=512,
        pad_token_id=0, bos_token_id=1, eos_token_id=2, decoder_start_token_id=2, forced_eos_token_id=None,
    )  # fmt: skip
    BartForConditionalGeneration(config).save_pretrained(folder)


def peak(folder: Path, command: str) -> int:
    """Return the peak resident memory of a command, in kilobytes."""
    code = (
        "import resource, sys; from g2r_lightning.cli import main; "
        f"status = main(['{command}', '-c', 'x.yaml']); "
        "print('PEAK', resource.getrusage(resource.RUSAGE_SELF).ru_maxrss); sys.exit(status)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, check=True, capture_output=True, text=True,
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
    )  # fmt: skip
    return int(done.stdout.rpartition("PEAK ")[2])


def main() -> None:
    """Measure both sizes and print JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--contexts", type=int, nargs=2, default=[1_000, 20_000])
    arguments = parser.parse_args()
    found: dict[str, dict[str, float]] = {}
    for contexts in arguments.contexts:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            write_teacher(folder / "teacher")
            (folder / "x.yaml").write_text(YAML)
            with (folder / "dialogues.jsonl").open("w") as file:
                for number in range(contexts // 5):
                    turns = [
                        " ".join(WORDS[(number * 7 + turn * 31 + w * 13) % 400] for w in range(12)) for turn in range(6)
                    ]
                    file.write(json.dumps({"turns": turns}) + "\n")
            found[str(contexts)] = {command: peak(folder, command) / 1024 for command in ("generate", "score")}
    small, large = found.values()
    growth = {command: large[command] / small[command] - 1 for command in small}
    rows = [
        {
            "pass": command,
            **{f"{int(contexts):,} contexts, MB": f"{peaks[command]:.0f}" for contexts, peaks in found.items()},
            "growth": f"{growth[command]:+.1%}",
        }
        for command in small
    ]
    about = "Peak resident memory of each command in a process of its own; a tiny encoder-decoder, three replies each."
    title = "Memory of the teacher's passes"
    print(write_report("teacher_memory", title, "python benchmarks/teacher_memory.py", about, rows, found))


if __name__ == "__main__":
    main()
