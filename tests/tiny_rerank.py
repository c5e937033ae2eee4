"""Tiny second stages of every kind, with random weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from tiny import WORDS, write_tokenizer

CLASSIFIERS = ("bert", "distilbert", "roberta", "gpt2")


def write_classifier(folder: Path, family: str = "bert", labels: int = 1, positions: int = 64) -> Path:
    """Write a sequence classification model, with the tokenizer of the tiny words."""
    import transformers as hf
    from tokenizers.processors import TemplateProcessing

    folder.mkdir(parents=True, exist_ok=True)
    write_tokenizer(folder, WORDS)
    tokenizer = hf.AutoTokenizer.from_pretrained(folder)
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    tokenizer.save_pretrained(folder)
    size = 5 + len(WORDS)
    wide: dict[str, Any] = {
        "vocab_size": size, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2,
        "intermediate_size": 32, "initializer_range": 0.4, "num_labels": labels, "pad_token_id": 0,
    }  # fmt: skip
    configs = {
        "bert": lambda: hf.BertConfig(**wide, max_position_embeddings=positions),
        "roberta": lambda: hf.RobertaConfig(**wide, max_position_embeddings=positions + 1, type_vocab_size=2),
        "distilbert": lambda: hf.DistilBertConfig(
            vocab_size=size, dim=16, n_layers=2, n_heads=2, hidden_dim=32, initializer_range=0.4, num_labels=labels,
            max_position_embeddings=positions,
        ),
        "gpt2": lambda: hf.GPT2Config(
            vocab_size=size, n_embd=16, n_layer=2, n_head=2, n_positions=positions, initializer_range=0.4,
            num_labels=labels, bos_token_id=2, eos_token_id=3,
        ),
    }  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(3)
        hf.AutoModelForSequenceClassification.from_config(configs[family]()).save_pretrained(str(folder))
    return folder
