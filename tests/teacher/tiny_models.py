"""Tiny random models of every family, made from configurations and saved as folders: no network, a second in all."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import (
    BartConfig,
    BartForConditionalGeneration,
    BertConfig,
    BertLMHeadModel,
    BertModel,
    BlenderbotConfig,
    BlenderbotForConditionalGeneration,
    BlenderbotSmallConfig,
    BlenderbotSmallForConditionalGeneration,
    BlenderbotSmallTokenizer,
    EncoderDecoderModel,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    T5Config,
    T5ForConditionalGeneration,
)

CORPUS = [
    "hi there, how are you doing today?",
    "i am fine, thanks. what do you do for a living?",
    "i'm a teacher; i have two dogs and a cat.",
    "that's great! do you like music?",
    "yes, i listen to jazz all day long.",
]

CHAT = (
    "{% for m in messages %}<|{{ m['role'] }}|>\n{{ m['content'] }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)

ENCODER_DECODERS = ["bart", "t5", "blenderbot", "blenderbot_small", "bert2bert"]
CAUSAL = ["gpt2", "llama", "llama_chat"]
FAMILIES = [*ENCODER_DECODERS, *CAUSAL]

SIZE = {"d_model": 16, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 2}
SIZE |= {"decoder_attention_heads": 2, "encoder_ffn_dim": 32, "decoder_ffn_dim": 32, "init_std": 0.4, "dropout": 0.1}


def byte_level(specials: list[str], template: str | None, prefix_space: bool = False, **names: Any) -> Any:
    """A byte-level BPE of 350 tokens; ``specials`` take the first ids."""
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=prefix_space)
    core.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=350, special_tokens=specials, initial_alphabet=alphabet, show_progress=False
    )
    core.train_from_iterator(CORPUS, trainer)
    if template:
        ids = [(token, core.token_to_id(token)) for token in specials]
        core.post_processor = processors.TemplateProcessing(single=template, special_tokens=ids)
    return PreTrainedTokenizerFast(tokenizer_object=core, **names)


def word_pieces() -> Any:
    """BERT's special tokens over whole words and single characters, lower-cased."""
    from tokenizers import normalizers

    words = sorted({word for text in CORPUS for word in text.replace("?", " ?").replace(",", " ,").split()})
    letters = sorted(set("".join(CORPUS)) - {" "})
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *letters, *(f"##{letter}" for letter in letters), *words]
    vocabulary = {token: number for number, token in enumerate(dict.fromkeys(tokens))}
    core = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    core.normalizer = normalizers.BertNormalizer()
    core.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    core.decoder = decoders.WordPiece(cleanup=False)
    core.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=core, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]"
    )


def small_blender_tokenizer(folder: Path) -> Any:
    """The real tokenizer class of BlenderBot 90M over single letters."""
    letters = sorted(set("".join(CORPUS)) - {" "})
    tokens = ["__null__", "__start__", "__end__", "__unk__", "__newln__", *letters, *(f"{x}@@" for x in letters)]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps({token: i for i, token in enumerate(tokens)}))
    steps = [("_", "_"), ("__", "n"), ("__n", "e"), ("__ne", "w"), ("__new", "l"), ("__newl", "n"), ("_", "_</w>")]
    merges = [" ".join(pair) for pair in [*steps, ("__newln", "__</w>")]]
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *merges, ""]))
    return BlenderbotSmallTokenizer(str(folder / "vocab.json"), str(folder / "merges.txt"))


BART_IDS = {"bos_token_id": 0, "pad_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 2}


def bart(folder: Path) -> tuple[Any, Any]:
    tokenizer = byte_level(
        ["<s>", "<pad>", "</s>"], "<s> $A </s>", bos_token="<s>", pad_token="<pad>", eos_token="</s>", sep_token="</s>"
    )
    config = BartConfig(vocab_size=len(tokenizer), max_position_embeddings=128, **SIZE, **BART_IDS)
    return BartForConditionalGeneration(config), tokenizer


def t5(folder: Path) -> tuple[Any, Any]:
    tokenizer = byte_level(["<pad>", "</s>"], "$A </s>", pad_token="<pad>", eos_token="</s>")
    config = T5Config(
        vocab_size=len(tokenizer), d_model=16, d_kv=8, d_ff=32, num_layers=2, num_heads=2, decoder_start_token_id=0
    )
    model = T5ForConditionalGeneration(config)
    model.shared.weight.data.mul_(0.3)
    return model, tokenizer


def blenderbot(folder: Path) -> tuple[Any, Any]:
    tokenizer = byte_level(
        ["<pad>", "<s>", "</s>"], "$A </s>", True, pad_token="<pad>", bos_token="<s>", eos_token="</s>"
    )
    config = BlenderbotConfig(
        vocab_size=len(tokenizer), max_position_embeddings=128, pad_token_id=0, bos_token_id=1, eos_token_id=2,
        decoder_start_token_id=1, num_beams=10, min_length=20, no_repeat_ngram_size=3, **SIZE,
    )  # fmt: skip
    return BlenderbotForConditionalGeneration(config), tokenizer


def blenderbot_small(folder: Path) -> tuple[Any, Any]:
    tokenizer = small_blender_tokenizer(folder)
    config = BlenderbotSmallConfig(
        vocab_size=len(tokenizer), max_position_embeddings=512, pad_token_id=0, bos_token_id=1, eos_token_id=2,
        decoder_start_token_id=1, **SIZE,
    )  # fmt: skip
    return BlenderbotSmallForConditionalGeneration(config), tokenizer


def bert_config(vocabulary: int, **more: Any) -> Any:
    return BertConfig(
        vocab_size=vocabulary, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32,
        max_position_embeddings=64, initializer_range=0.3, **more,
    )  # fmt: skip


def bert2bert(folder: Path) -> tuple[Any, Any]:
    tokenizer = word_pieces()
    reader = BertModel(bert_config(len(tokenizer)))
    writer = BertLMHeadModel(bert_config(len(tokenizer), is_decoder=True, add_cross_attention=True))
    model = EncoderDecoderModel(encoder=reader, decoder=writer)
    for settings in (model.config, model.generation_config):
        settings.decoder_start_token_id, settings.eos_token_id, settings.pad_token_id = 2, 3, 0
    return model, tokenizer


def gpt2(folder: Path) -> tuple[Any, Any]:
    tokenizer = byte_level(["<|endoftext|>"], None, eos_token="<|endoftext|>", bos_token="<|endoftext|>")
    config = GPT2Config(
        vocab_size=len(tokenizer), n_embd=16, n_layer=2, n_head=2, n_positions=256, initializer_range=0.3,
        bos_token_id=0, eos_token_id=0,
    )  # fmt: skip
    return GPT2LMHeadModel(config), tokenizer


def llama(folder: Path, chat: str | None = None) -> tuple[Any, Any]:
    specials = ["<s>", "</s>", "<|system|>", "<|user|>", "<|assistant|>", "<|end|>"]
    tokenizer = byte_level(
        specials, "<s> $A", bos_token="<s>", eos_token="</s>", additional_special_tokens=specials[2:]
    )
    tokenizer.chat_template = chat
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
        max_position_embeddings=256, initializer_range=0.3, bos_token_id=0, eos_token_id=1,
    )  # fmt: skip
    return LlamaForCausalLM(config), tokenizer


def llama_chat(folder: Path) -> tuple[Any, Any]:
    return llama(folder, CHAT)


MAKERS = {
    maker.__name__: maker for maker in (bart, t5, blenderbot, blenderbot_small, bert2bert, gpt2, llama, llama_chat)
}
