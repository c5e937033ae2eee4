"""Does the memory of `encode` grow with the response set? A tiny student over 20,000 and 200,000 short responses.

``python benchmarks/encode_memory.py``: each run is a command in a process of its own; its peak resident memory is what
the operating system tells at its end. What remembers the texts that were seen (16 bytes each) is measured apart.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from report import write_report

WORDS = [f"w{number}" for number in range(400)]


def write_student(folder: Path) -> None:
    """Write a bi-encoder of 32 dimensions with random weights over whole words."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    from g2r_lightning.student import BiEncoder, StudentText, save_student

    vocabulary = {word: number for number, word in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", *WORDS])}
    core = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    core.pre_tokenizer = pre_tokenizers.Whitespace()
    core.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    backbone = folder / "backbone"
    PreTrainedTokenizerFast(
        tokenizer_object=core, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]"
    ).save_pretrained(backbone)
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(vocabulary), hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32
    )
    BertModel(config).save_pretrained(backbone)
    save_student(BiEncoder(str(backbone)), StudentText().bind(str(backbone)), folder / "student")


def write_responses(path: Path, count: int) -> None:
    """Write distinct responses of five to twelve words, and every tenth of them twice."""
    with path.open("w") as file:
        for number in range(count):
            size = 5 + number % 8
            words = [WORDS[number // 400**place % 400] for place in range(3)] + [WORDS[number * 7 % 400]] * (size - 3)
            line = " ".join(words) + "\n"
            file.write(line if number % 10 else 2 * line)


def peak(code: str, folder: Path) -> int:
    """Return the peak resident memory of a Python process that runs ``code``, in kilobytes."""
    told = "; import resource; print('PEAK', resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
    done = subprocess.run(
        [sys.executable, "-c", code + told], cwd=folder, check=True, capture_output=True, text=True,
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
    )  # fmt: skip
    return int(done.stdout.rpartition("PEAK ")[2])


def main() -> None:
    """Measure both sizes, and the set of digests by itself."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--responses", type=int, nargs=2, default=[20_000, 200_000])
    parser.add_argument("--keys", type=int, default=3_000_000, help="texts that the set of digests is measured with")
    arguments = parser.parse_args()
    found: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_student(folder)
        for count in arguments.responses:
            write_responses(folder / "responses.txt", count)
            flags = f"'--encode.input=responses.txt', '--encode.output=of-{count}', '--encode.student=student'"
            call = f"main(['encode', {flags}, '--trainer.accelerator=cpu'])"
            code = f"from g2r_lightning.cli import main; assert {call} == 0"
            found[f"encode, {count:,} responses"] = peak(code, folder) / 1024
        load = "from g2r_lightning.index.distinct import SeenKeys; seen = SeenKeys()"
        fill = f"[seen.add([str(n) for n in range(s, s + 8192)]) for s in range(0, {arguments.keys}, 8192)]"
        before, after = peak(load, folder), peak(f"{load}; {fill}", folder)
        found[f"digests of {arguments.keys:,} texts, beyond an empty process"] = (after - before) / 1024
    small, large, _ = found.values()
    rows = [{"what": what, "peak, MB": f"{megabytes:.0f}"} for what, megabytes in found.items()]
    rows.append({"what": "growth from the first to the second", "peak, MB": f"{large / small - 1:+.1%}"})
    about = (
        "Peak resident memory of each command in a process of its own; a tiny bi-encoder, shards of 16,384 responses."
    )
    title = "Memory of the encoding of a response set"
    print(write_report("encode_memory", title, "python benchmarks/encode_memory.py", about, rows, found))


if __name__ == "__main__":
    main()
