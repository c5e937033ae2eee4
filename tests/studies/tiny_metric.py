"""A learned metric's experiment on tiny data."""

from __future__ import annotations

from pathlib import Path

from tiny import WORDS, write_dialogues, write_encoder

EXPERIMENT = """
seed_everything: 1
run: {{name: metric, root: "{folder}/runs"}}
data:
  class_path: g2r_lightning.data.CorruptedDialogueDataModule
  init_args:
    train: [{{class_path: {reader}, init_args: {{path: "{folder}/train.jsonl"}}}}]
    validation: {{val: {{class_path: {reader}, init_args: {{path: "{folder}/val.jsonl"}}}}}}
    test:
      one: {{class_path: {reader}, init_args: {{path: "{folder}/one.jsonl"}}}}
      two: {{class_path: {reader}, init_args: {{path: "{folder}/two.jsonl"}}}}
    batch_size: 8
    evaluation_batch_size: 7
    seed: ${{seed_everything}}
    cache_dir: {folder}/cache
model:
  class_path: g2r_lightning.studies.unreferenced.UnreferencedModule
  init_args:
    encoder:
      class_path: g2r_lightning.studies.unreferenced.UtteranceEncoder
      init_args: {{name_or_path: "{folder}/encoder", max_tokens: 16}}
    projection: 8
    memory: 8
    hidden: 8
    schedule: {{name: linear, warmup_steps: 2}}
trainer:
  accelerator: cpu
  max_epochs: 2
  precision: 32-true
  log_every_n_steps: 1
  num_sanity_val_steps: 0
  enable_progress_bar: false
  enable_model_summary: false
  callbacks:
    - class_path: lightning.pytorch.callbacks.ModelCheckpoint
      init_args: {{monitor: validation/all/auc, mode: max}}
    - class_path: lightning.pytorch.callbacks.ModelCheckpoint
      init_args: {{every_n_train_steps: 1, save_top_k: -1, filename: "at-{{step}}"}}
"""
STEPS = 12  # of the whole run, 6 an epoch


def write_metric_experiment(folder: Path) -> Path:
    """Write dialogues, encoder and experiment; return the experiment's file."""
    folder.mkdir(parents=True, exist_ok=True)
    write_encoder(folder / "encoder", WORDS)
    for seed, (name, count) in enumerate({"train": 12, "val": 4, "one": 3, "two": 4}.items()):
        write_dialogues(folder / f"{name}.jsonl", count, 5, seed, name)
    path = folder / "metric.yaml"
    reader = "g2r_lightning.dialogue.readers.JsonlReader"
    path.write_text(EXPERIMENT.format(folder=folder, reader=reader), encoding="utf-8")
    return path
