"""Scoring ten candidates a context: against padded pairs, and against lm-eval-harness where it is installed.

``python benchmarks/teacher_scoring.py --data DATA`` (DATA: the folder with ``blended_skill_talk/test.jsonl`` and
``tokenizers/``). Two shapes with random weights, BlenderBot-small (8+8 layers, 512 dimensions) and GPT-2 small, real
tokenizers, real dialogues: contexts of exactly 64 tokens (and of other lengths: ``--context-tokens 64 128``), ten human
responses each, in float32 and, where the CPU is good at it, bfloat16. The ways run in the order A/B/A/B in one process;
the seconds are the median of the rounds. The scores of all ways are compared with a float64 reference that runs one
pair at a time.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    BlenderbotSmallConfig,
    BlenderbotSmallForConditionalGeneration,
    BlenderbotSmallTokenizer,
    GPT2Config,
    GPT2LMHeadModel,
    GPT2TokenizerFast,
)

from g2r_lightning.dialogue import Example
from g2r_lightning.dialogue.readers import JsonlReader
from g2r_lightning.teacher import CausalTeacher, EncoderDecoderTeacher
from g2r_lightning.teacher.batching import token_log_likelihoods
from harness import cpu_flags, good_at_bfloat16
from report import write_report

PAIRS = 32
CANDIDATES = 10
Scores = list[float]


def write_models(data: Path, folder: Path) -> None:
    """Write both shapes with random weights of a usable spread, beside the real tokenizers."""
    torch.manual_seed(0)
    if not (folder / "blenderbot_small/config.json").exists():
        source = data / "tokenizers/blenderbot_small-90M"
        tokenizer = BlenderbotSmallTokenizer(str(source / "vocab.json"), str(source / "merges.txt"))
        ids = {name: tokenizer.convert_tokens_to_ids(token) for name, token in
               (("pad_token_id", "__null__"), ("bos_token_id", "__start__"), ("eos_token_id", "__end__"))}  # fmt: skip
        config = BlenderbotSmallConfig(vocab_size=len(tokenizer), init_std=0.05, **ids)
        config.decoder_start_token_id = ids["bos_token_id"]
        BlenderbotSmallForConditionalGeneration(config).save_pretrained(folder / "blenderbot_small")
        tokenizer.save_pretrained(folder / "blenderbot_small")
    if not (folder / "gpt2/config.json").exists():
        source = data / "tokenizers/gpt2_dialogpt"
        tokenizer = GPT2TokenizerFast(vocab=str(source / "vocab.json"), merges=str(source / "merges.txt"))
        GPT2LMHeadModel(GPT2Config(initializer_range=0.05)).save_pretrained(folder / "gpt2")
        tokenizer.save_pretrained(folder / "gpt2")


def pairs_of(data: Path, count: int, tokens: int) -> tuple[list[Example], list[list[str]]]:
    """Return contexts that are longer than so many tokens, and ten human responses for each."""
    dialogues = list(JsonlReader(str(data / "blended_skill_talk/test.jsonl")))
    words = tokens * 5 // 4
    examples = [e for d in dialogues for e in d.examples() if sum(len(turn.split()) for turn in e.context) > words]
    responses = [turn for dialogue in dialogues for turn in dialogue.turns]
    chosen = examples[:: max(1, len(examples) // count)][:count]
    texts = [[chosen[i].response, *responses[i * 37 :: 101][: CANDIDATES - 1]] for i in range(len(chosen))]
    return chosen, texts


def token_pairs(teacher: Any, examples: list[Example], texts: list[list[str]]) -> list[tuple[list[int], list[int]]]:
    """Return the tokens of every (context, candidate)."""
    return [
        (teacher.template.context_ids(example), teacher.template.response_ids(text))
        for example, own in zip(examples, texts, strict=True)
        for text in own
    ]


def padded_pairs(
    teacher: Any, model: Any, examples: list[Example], texts: list[list[str]], batch: int = PAIRS
) -> Scores:
    """Score pairs in the order given, in padded batches: each a row of its own, the vocabulary at every position."""
    rows = token_pairs(teacher, examples, texts)
    scores: Scores = []
    with torch.no_grad():
        for start in range(0, len(rows), batch):
            some = rows[start : start + batch]
            if isinstance(teacher, CausalTeacher):
                inputs = teacher._inputs(some, "cpu")
                labels = inputs.pop("labels")
                logits = model(**inputs, use_cache=False).logits
            else:
                read = teacher._encoder_inputs([context for context, _ in some], "cpu")
                inputs = {**read, **teacher._decoder_inputs([response for _, response in some], "cpu")}
                labels = inputs.pop("labels")
                logits = model(**inputs, use_cache=False).logits
            scores += token_log_likelihoods(logits, labels)[0].tolist()
    return scores


def ours(teacher: Any, examples: list[Example], texts: list[list[str]]) -> Scores:
    """Score with the package's teacher."""
    return [total for own in teacher.log_likelihood(examples, texts) for total, _ in own]


def lm_eval_scorer(folder: Path, teacher: Any, causal: bool) -> Callable[..., Scores] | None:
    """Return lm-eval-harness's own ``loglikelihood`` over the same tokens, as its authors document it (batch 32)."""
    try:
        from lm_eval.api.instance import Instance
        from lm_eval.models.huggingface import HFLM
    except ImportError:
        return None
    backend = "causal" if causal else "seq2seq"
    model = HFLM(pretrained=str(folder), backend=backend, device="cpu", batch_size=PAIRS, dtype="float32")

    def run(examples: list[Example], texts: list[list[str]]) -> Scores:
        # the tokens are ours, so that all ways score the same
        requests = [(("", ""), *pair) for pair in token_pairs(teacher, examples, texts)]
        assert Instance is not None
        return [total for total, _ in model._loglikelihood_tokens(requests, disable_tqdm=True)]

    return run


def measure(
    name: str, folder: Path, data: Path, contexts: int, tokens: int, rounds: int, precisions: list[str]
) -> dict[str, Any]:
    """Return seconds and differences of all ways for one shape and length of context."""
    causal = name == "gpt2"
    kind, loader = (CausalTeacher, AutoModelForCausalLM) if causal else (EncoderDecoderTeacher, AutoModelForSeq2SeqLM)
    examples, texts = pairs_of(data, contexts, tokens)
    teachers = {p: kind(name_or_path=str(folder), dtype=p) for p in precisions}
    for teacher in teachers.values():
        teacher.load()
        teacher.template.max_context_tokens = tokens
    base = teachers["float32"]
    plain = loader.from_pretrained(folder, dtype=torch.float32).eval()
    ways: dict[str, Callable[[], Scores]] = {
        "padded pairs of 32, float32": lambda: padded_pairs(base, plain, examples, texts)
    }
    for precision, teacher in teachers.items():
        ways[f"ours, {precision}"] = lambda teacher=teacher: ours(teacher, examples, texts)
    harness = lm_eval_scorer(folder, base, causal)
    if harness is not None:
        ways["lm-eval-harness, batch 32, float32"] = lambda: harness(examples, texts)
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    scores: dict[str, Scores] = {}
    for _ in range(rounds):
        for way, run in ways.items():
            begun = time.perf_counter()
            scores[way] = run()
            seconds[way].append(time.perf_counter() - begun)
    few = min(2, len(examples))
    exact = loader.from_pretrained(folder, dtype=torch.float64).eval()
    reference = padded_pairs(base, exact, examples[:few], texts[:few], batch=1)
    counts = [len(base.template.response_ids(t)) for own in texts[:few] for t in own]
    median = {way: statistics.median(times) for way, times in seconds.items()}
    first = next(iter(median.values()))
    return {
        way: {
            "seconds": round(median[way], 2),
            "rounds": [round(s, 2) for s in seconds[way]],
            "times faster than padded pairs": round(first / median[way], 2),
            "largest difference from float64, nats a token": max(
                abs(a - b) / n for a, b, n in zip(scores[way], reference, counts, strict=False)
            ),
        }
        for way in ways
    }


def main() -> None:
    """Measure both shapes and print, or write, JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("G2R_DATA", "data")))
    parser.add_argument("--models", type=Path, default=Path(".cache/benchmark-models"))
    parser.add_argument("--contexts", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--context-tokens", type=int, nargs="+", default=[64])
    parser.add_argument("--precisions", nargs="+", help="float32, and bfloat16 where the CPU is good at it")
    arguments = parser.parse_args()
    good = good_at_bfloat16(cpu_flags(), "cpu")
    precisions = arguments.precisions or (["float32", "bfloat16"] if good else ["float32"])
    write_models(arguments.data, arguments.models)
    found = {
        f"{name}, {tokens} tokens": measure(
            name, arguments.models / name, arguments.data, arguments.contexts, tokens, arguments.rounds, precisions
        )
        for tokens in arguments.context_tokens
        for name in ("blenderbot_small", "gpt2")
    }
    rows = [
        {
            "shape, context": name,
            "way": way,
            "seconds": f"{figures['seconds']:.1f}",
            "times faster": f"{figures['times faster than padded pairs']:.2f}",
            "largest difference, nats a token": f"{figures['largest difference from float64, nats a token']:.1e}",
        }
        for name, ways in found.items()
        for way, figures in ways.items()
    ]
    about = (
        f"{arguments.contexts} contexts of the tokens named, with ten candidates each, random weights, medians of "
        f"{arguments.rounds} rounds in the order A/B/A/B in one process; differences are from float64, one pair at a "
        "time. lm-eval-harness runs its own `_loglikelihood_tokens` over the same tokens."
    )
    lengths = " ".join(map(str, arguments.context_tokens))
    command = f"python benchmarks/teacher_scoring.py --data $G2R_DATA --contexts {arguments.contexts}"
    command += f" --context-tokens {lengths} --rounds {arguments.rounds}"
    print(write_report("teacher_scoring", "Scoring ten candidates a context", command, about, rows, found))


if __name__ == "__main__":
    main()
