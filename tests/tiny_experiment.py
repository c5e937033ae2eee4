"""One experiment on tiny data, as a user writes it, and ways to look at what its runs left."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from g2r_lightning.cli import main
from tiny import WORDS, write_dialogues, write_encoder

EXPERIMENT = """
seed_everything: 1
run: {{name: first, root: "{folder}/runs"}}
alias: {{folder: "{folder}"}}
data:
  class_path: g2r_lightning.data.DialogueDataModule
  init_args:
    train: [{{class_path: {reader}, init_args: {{path: "${{alias.folder}}/train.jsonl"}}}}]
    validation: {{val: {{class_path: {reader}, init_args: {{path: "${{alias.folder}}/val.jsonl"}}}}}}
    test:
      one: {{class_path: {reader}, init_args: {{path: "${{alias.folder}}/one.jsonl"}}}}
      two: {{class_path: {reader}, init_args: {{path: "${{alias.folder}}/two.jsonl"}}}}
    negatives: {{random: 8}}
    batch_size: 8
    seed: ${{seed_everything}}
    cache_dir: ${{alias.folder}}/cache
model:
  class_path: g2r_lightning.student.RetrievalStudent
  init_args:
    encoder:
      class_path: g2r_lightning.student.BiEncoder
      init_args: {{name_or_path: "${{alias.folder}}/encoder"}}
    text:
      class_path: g2r_lightning.student.StudentText
      init_args: {{max_context_tokens: 32, max_response_tokens: 16}}
    loss:
      class_path: g2r_lightning.losses.G2RLoss
      init_args: {{alpha: 0.0}}
    optimizer: {{class_path: torch.optim.AdamW, init_args: {{lr: 1.0e-3}}}}
    schedule: {{name: constant, warmup_steps: 2}}
trainer:
  accelerator: cpu
  precision: 32-true  # on every machine; by itself it would be bf16-mixed where the CPU is good at that
  max_epochs: 2
  log_every_n_steps: 1
  num_sanity_val_steps: 0
  enable_progress_bar: false
  enable_model_summary: false
  callbacks:
    - class_path: g2r_lightning.callbacks.RetrievalEvaluation
      init_args: {{progress: false}}
    - class_path: lightning.pytorch.callbacks.ModelCheckpoint
      init_args: {{monitor: validation/all/hits_at_1_of_20, mode: max}}
    - class_path: lightning.pytorch.callbacks.ModelCheckpoint
      init_args: {{every_n_train_steps: 1, save_top_k: -1, filename: "at-{{step}}"}}
"""
STEPS = 12  # of the whole run, 6 an epoch


def write_experiment(folder: Path) -> Path:
    """Write dialogues, encoder and experiment; return the experiment's file."""
    folder.mkdir(parents=True, exist_ok=True)
    write_encoder(folder / "encoder", WORDS)
    for seed, (name, count) in enumerate({"train": 12, "val": 6, "one": 6, "two": 8}.items()):
        write_dialogues(folder / f"{name}.jsonl", count, 5, seed, name)
    path = folder / "x.yaml"
    path.write_text(
        EXPERIMENT.format(folder=folder, reader="g2r_lightning.dialogue.readers.JsonlReader"), encoding="utf-8"
    )
    return path


def run(command: str, experiment: Path, *flags: str) -> int:
    """Run a command on an experiment and return its exit status."""
    return main([command, "-c", str(experiment), *flags])


def weights(checkpoint: Path) -> dict[str, torch.Tensor]:
    """Return a checkpoint's weights, read without pickle's freedom."""
    state: dict[str, torch.Tensor] = torch.load(checkpoint, map_location="cpu", weights_only=True)["state_dict"]
    return state


def at_step(run_folder: Path, step: int = STEPS) -> Path:
    """Return the checkpoint that a run wrote after so many steps."""
    return run_folder / "checkpoints" / f"at-step={step}.ckpt"


def same(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor]) -> bool:
    """Whether two sets of weights agree to the last bit."""
    return left.keys() == right.keys() and all(torch.equal(left[key], right[key]) for key in left)


def results(run_folder: Path, stage: str) -> dict[str, Any]:
    """Return ``results/<stage>.json``."""
    found: dict[str, Any] = json.loads((run_folder / "results" / f"{stage}.json").read_text(encoding="utf-8"))
    return found
