"""The small study's plan, run at tiny size: every step through ``main``, on random words and tiny models.

``python tests/studies/tiny_study_run.py FOLDER`` (``make stored-study``) runs it in a folder of its own and keeps the
records in ``tests/studies/stored``, on which notebooks and tables are tested. The figures mean nothing.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[2]
STORED = Path(__file__).parent / "stored"
sys.path[:0] = [str(ROOT / "tests")]
TRAINER = [
    "--trainer.accelerator=cpu", "--trainer.precision=32-true", "--trainer.enable_progress_bar=false",
    "--trainer.log_every_n_steps=1",
]  # fmt: skip
ENCODER = ["--model.encoder.name_or_path=encoder"]
LESS = ["--alias.train_share=1.0", "--alias.negatives=8"]
TEACHER = [
    "--model.ranked_examples=5", "--model.teacher.encoder_name_or_path=encoder",
    "--model.teacher.decoder_name_or_path=encoder",
]  # fmt: skip
MORE = {  # beside the plan's own students: factors of the other tables, a second seed
    "bi-m_ll-1": "-c experiments/bi.yaml -c experiments/study/m_ll.yaml",
    "bi-m_mi-1": "-c experiments/bi.yaml -c experiments/study/m_mi.yaml",
    "bi-baseline-2": "-c experiments/bi.yaml -c experiments/baseline.yaml --seed_everything=2",
    "bi-dm_ll-2": "-c experiments/bi.yaml -c experiments/dm_ll.yaml --seed_everything=2",
    "alpha": "-c experiments/bi.yaml -c experiments/dm_ll.yaml --alias.alpha=0.5 --run.name=alpha",
    "temperature": "-c experiments/bi.yaml -c experiments/dm_ll.yaml --alias.temperature=4 --run.name=temperature",
    "m": "-c experiments/bi.yaml -c experiments/dm_ll.yaml --data.max_generated=1 --run.name=m",
    "original": "-c experiments/bi.yaml -c experiments/d.yaml --data.response_sources=[original] --run.name=original",
    "batch": "-c experiments/bi.yaml -c experiments/baseline.yaml --data.negatives.in_batch=true --run.name=in_batch",
    "longer": "-c experiments/bi.yaml -c experiments/baseline.yaml --trainer.max_epochs=2 --run.name=longer",
}


def prepare(folder: Path) -> None:
    """Write a user's folder: experiments, tiny data in every form, a tiny encoder."""
    from tiny import WORDS, write_encoder
    from tiny_data import write_data

    folder.mkdir(parents=True, exist_ok=True)
    (folder / "experiments").symlink_to(ROOT / "experiments")
    write_data(folder / "data")
    write_encoder(folder / "encoder", WORDS)


def run_tiny_study(more: dict[str, str]) -> None:
    """Run the plan in the current folder, and ``more``: run -> flags of its fit over the study's base."""
    from g2r_lightning.cli import main
    from g2r_lightning.studies.plan import read_plan

    fit = " ".join([*ENCODER, *TRAINER, *LESS])
    base = "-c experiments/base.yaml -c experiments/study/small.yaml"
    flags = {
        "fit": fit,
        "fit_teacher": " ".join([*TEACHER, *TRAINER, "--trainer.limit_train_batches=2"]),
        "fit_metric": " ".join([*ENCODER, *TRAINER, "--alias.train_share=1.0", "--model.projection=8"]),
        "contexts": "3",
        "samples": "1000",
        "results": "results",
    }
    for step in read_plan(Path("experiments/study/small.plan.yaml"), flags).steps:
        if step.is_done:
            continue
        arguments = [*step.arguments]
        if arguments[0] in ("generate", "score"):
            arguments += ["--alias.train_share=1.0", "--trainer.accelerator=cpu"]
        if arguments[0] == "latency":  # beams of a teacher that never ends are slow, however small it is
            arguments += ["--latency.decodings=[greedy]", "--latency.max_tokens=4"]
        if arguments[0] == "generate":
            arguments += ["--sampling.max_tokens=24"]
        if arguments[0] == "report":
            for name, own in more.items():
                if (Path("runs/study_small") / name / "results" / "test.json").is_file():
                    continue
                assert main(["fit", *base.split(), *own.split(), *fit.split()]) == 0, name
        assert main(arguments) == 0, " ".join(arguments)
        assert step.done is None or step.is_done, step.name


def store() -> None:
    """Run it here, and keep the records in the place of those that are stored."""
    run_tiny_study(MORE)
    shutil.rmtree(STORED, ignore_errors=True)
    shutil.copytree("results/records", STORED)
    for path in STORED.rglob("record.json"):
        record = json.loads(path.read_text())
        record.pop("command", None)  # of this program, which calls all the commands
        path.write_text(json.dumps(record, indent=2) + "\n")
    for path in STORED.rglob("config.yaml"):  # sections of other commands hold nothing but defaults
        config = yaml.safe_load(path.read_text())
        kept = {key: config[key] for key in ("seed_everything", "run", "data", "model", "trainer")}
        path.write_text(yaml.safe_dump(kept, sort_keys=False))


if __name__ == "__main__":
    if not Path(sys.argv[1]).exists():
        prepare(Path(sys.argv[1]))
    os.chdir(sys.argv[1])
    os.environ.pop("G2R_DATA", None)
    store()
