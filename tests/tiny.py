"""Tiny models made from nothing, so that tests need no download and no time."""

from __future__ import annotations

import json
from pathlib import Path


def write_tokenizer(folder: Path, words: list[str]) -> None:
    """Write a word-level tokenizer in BERT's manner."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    vocabulary = {word: i for i, word in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *words])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]",
        mask_token="[MASK]", model_max_length=512,
    ).save_pretrained(str(folder))  # fmt: skip


def write_encoder(folder: Path, words: list[str], hidden: int = 16, layers: int = 2, seed: int = 0) -> Path:
    """Write a tiny BERT with the tokenizer of these words."""
    import torch
    from transformers import BertConfig, BertModel

    folder.mkdir(parents=True, exist_ok=True)
    write_tokenizer(folder, words)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        config = BertConfig(
            vocab_size=5 + len(words), hidden_size=hidden, num_hidden_layers=layers, num_attention_heads=2,
            intermediate_size=2 * hidden, max_position_embeddings=512,
        )  # fmt: skip
        BertModel(config).save_pretrained(str(folder))
    return folder


_WORDS = """
i you we they it the a an is are was do does not no yes hi hello how what where why when like love hate have had
dog cat pizza music movie book game work job home city garden car food tea coffee friend family today tomorrow
really very good bad nice great fun sad happy tired new old big small red blue green . , ? ! '
"""
WORDS = _WORDS.split()


def write_dialogues(path: Path, count: int = 12, turns: int = 5, seed: int = 0, dataset: str = "tiny") -> Path:
    """Write dialogues of random words, all turns distinct."""
    import random

    draw = random.Random(f"{dataset}{seed}")
    lines = []
    for number in range(count):
        said = [" ".join(draw.choice(WORDS) for _ in range(draw.randint(3, 9))) for _ in range(turns)]
        lines.append(json.dumps({"id": f"d{number}", "dataset": dataset, "turns": said}))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def write_encoder_decoder(folder: Path, words: list[str], hidden: int = 16) -> Path:
    """Write a tiny BART with the tokenizer of these words."""
    import torch
    from transformers import BartConfig, BartForConditionalGeneration

    folder.mkdir(parents=True, exist_ok=True)
    write_tokenizer(folder, words)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = BartConfig(
            vocab_size=5 + len(words), d_model=hidden, encoder_layers=1, decoder_layers=1, encoder_attention_heads=2,
            decoder_attention_heads=2, encoder_ffn_dim=hidden, decoder_ffn_dim=hidden, max_position_embeddings=512,
            pad_token_id=0, bos_token_id=2, eos_token_id=3, decoder_start_token_id=3, forced_eos_token_id=None,
        )  # fmt: skip
        BartForConditionalGeneration(config).save_pretrained(str(folder))
    return folder
