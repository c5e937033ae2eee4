"""Every command on tiny models and data, with what it needs to be there and what it makes."""

from __future__ import annotations

import json
import random
import shutil
from dataclasses import dataclass
from pathlib import Path

from tiny import WORDS, write_dialogues, write_encoder

READER = "class_path: g2r_lightning.dialogue.readers.JsonlReader, init_args"
DATA = f"""
  train: [{{{READER}: {{path: train.jsonl}}}}]
  validation: {{val: {{{READER}: {{path: val.jsonl}}}}}}
  test: {{one: {{{READER}: {{path: one.jsonl}}}}}}
  batch_size: 8
  seed: 3
  cache_dir: cache
"""
TRAINER = """
trainer:
  accelerator: cpu
  precision: 32-true
  max_epochs: 2
  log_every_n_steps: 1
  num_sanity_val_steps: 0
  enable_progress_bar: false
  enable_model_summary: false
"""
SAVED = """
    - class_path: lightning.pytorch.callbacks.ModelCheckpoint
      init_args: {every_n_train_steps: 2, save_top_k: -1, filename: "at-{step}"}
"""


def _indented(text: str) -> str:
    return text.replace("\n", "\n  ")


TEACHER = f"""
seed_everything: 3
data:
  class_path: g2r_lightning.data.DialogueDataModule
  init_args:{_indented(DATA)}
teacher:
  class_path: g2r_lightning.teacher.CausalTeacher
  init_args: {{name_or_path: gpt2, dtype: float64}}
sampling: {{num_replies: 2, max_tokens: 8}}
scoring: {{name: tiny, prior: empty}}
store: store
shard_size: 6
trainer: {{accelerator: cpu}}
"""
STUDENT = f"""
seed_everything: 3
run: {{name: first, root: runs, test_untrained: true}}
data:
  class_path: g2r_lightning.data.AugmentedDialogueDataModule
  init_args:{_indented(DATA)}
    store: store
    negatives: {{random: 8}}
model:
  class_path: g2r_lightning.student.RetrievalStudent
  init_args:
    encoder: {{class_path: g2r_lightning.student.BiEncoder, init_args: {{name_or_path: encoder}}}}
    text:
      class_path: g2r_lightning.student.StudentText
      init_args: {{max_context_tokens: 32, max_response_tokens: 16}}
    loss: {{class_path: g2r_lightning.losses.G2RLoss, init_args: {{alpha: 0.1}}}}
    optimizer: {{class_path: torch.optim.AdamW, init_args: {{lr: 1.0e-3}}}}
    schedule: {{name: constant, warmup_steps: 2}}
{TRAINER}  callbacks:
    - class_path: g2r_lightning.callbacks.RetrievalEvaluation
      init_args: {{progress: false}}
    - class_path: lightning.pytorch.callbacks.ModelCheckpoint
      init_args: {{monitor: validation/all/hits_at_1_of_20, mode: max}}{SAVED}"""
FIT_TEACHER = f"""
seed_everything: 3
run: {{name: teacher, root: runs}}
data:
  class_path: g2r_lightning.data.TeacherDataModule
  init_args:{_indented(DATA)}
model:
  class_path: g2r_lightning.teacher.TeacherModule
  init_args:
    teacher: {{class_path: g2r_lightning.teacher.CausalTeacher, init_args: {{name_or_path: gpt2, dtype: float32}}}}
    warmup_steps: 2
    ranked_examples: 4
{TRAINER}  callbacks:
    - class_path: lightning.pytorch.callbacks.ModelCheckpoint
      init_args: {{monitor: validation/val/perplexity}}{SAVED}"""
METRIC = f"""
seed_everything: 3
run: {{name: metric, root: runs}}
data:
  class_path: g2r_lightning.data.CorruptedDialogueDataModule
  init_args:{_indented(DATA)}
model:
  class_path: g2r_lightning.studies.unreferenced.UnreferencedModule
  init_args:
    encoder:
      class_path: g2r_lightning.studies.unreferenced.UtteranceEncoder
      init_args: {{name_or_path: encoder, max_tokens: 16}}
    projection: 8
    memory: 8
    hidden: 8
    schedule: {{name: linear, warmup_steps: 2}}
{TRAINER}  callbacks:
    - class_path: lightning.pytorch.callbacks.ModelCheckpoint
      init_args: {{monitor: validation/all/auc, mode: max}}{SAVED}"""


@dataclass(frozen=True)
class Job:
    """A command and its surroundings.

    Args:
        name: of the job.
        words: the command line.
        after: the job whose outcome it stands on.
        makes: files and folders that it writes.
        reads: files and folders of others that it stands on; a damage of any must be told, or change nothing.
        once: whether it refuses to be done again, like sheets that raters may have by now.
    """

    name: str
    words: tuple[str, ...]
    after: str
    makes: tuple[str, ...]
    reads: tuple[str, ...] = ()
    once: bool = False


_RUN = "runs/first"
_INDEX = ("--index.input=r.jsonl", "--index.output=index", "--index.shard_size=16")
JOBS = {
    job.name: job
    for job in (
        Job("generate", ("generate", "-c", "teacher.yaml"), "", ("store/candidates",)),
        Job("score", ("score", "-c", "teacher.yaml"), "generate", ("store/scores",), ("store/candidates",)),
        Job("score of a file", ("score", "-c", "teacher.yaml", "--candidates=asked.jsonl", "--output=out/scored.jsonl"),
            "", ("out",)),
        Job("fit teacher", ("fit", "-c", "fit_teacher.yaml"), "", ("runs/teacher",)),
        Job("import", ("import", "-c", "teacher.yaml", "--store=theirs", "--replies=replies.jsonl"), "", ("theirs",)),
        Job("export", ("export", "-c", "teacher.yaml", "--output=out/release.jsonl"), "score", ("out",), ("store",)),
        Job("fit", ("fit", "-c", "student.yaml"), "score", (_RUN,), ("store",)),
        Job("test", ("test", "-c", f"{_RUN}/config.yaml"), "fit", (f"{_RUN}/results", f"{_RUN}/examples"),
            (f"{_RUN}/checkpoints", f"{_RUN}/config.yaml", f"{_RUN}/record.json", "store", "cache")),
        Job("predict", ("predict", "-c", f"{_RUN}/config.yaml", "--predict.contexts=contexts.jsonl"), "fit",
            (f"{_RUN}/predictions",), (f"{_RUN}/checkpoints", f"{_RUN}/config.yaml", f"{_RUN}/index", "cache")),
        Job("encode", ("encode", "-c", "student.yaml", "--encode.input=r.jsonl", "--encode.output=encoded",
                       "--encode.shard_size=16"), "fit", ("encoded",), (f"{_RUN}/checkpoints",)),
        Job("index", ("index", "-c", "student.yaml", *_INDEX, "--index.factory=HNSW8",
                      "--index.search={efSearch: 64}"), "fit", ("index",), (f"{_RUN}/checkpoints",)),
        Job("index of encoded", ("index", "-c", "student.yaml", "--index.input=encoded", "--index.output=index"),
            "encode", ("index",), ("encoded", f"{_RUN}/checkpoints")),
        Job("index add", ("index", "add", "--folder=index", "--input=more.jsonl"), "index", ("index/overlay",),
            ("index",)),
        Job("index remove", ("index", "remove", "--folder=index", "--where=source = llm"), "index add",
            ("index/overlay",), ("index",)),
        Job("index compact", ("index", "compact", "--folder=index"), "index remove", ("index",), ("index",)),
        Job("verify", ("index", "--verify", "--index.output=index"), "index remove", (), ("index",)),
        Job("export faiss", ("export", "-c", "student.yaml", "--format=faiss"), "fit", (f"{_RUN}/export",),
            (f"{_RUN}/index",)),
        Job("export folder", ("export", "-c", "student.yaml", "--format=sentence-transformers"), "fit",
            (f"{_RUN}/export",), (f"{_RUN}/checkpoints",)),
        Job("fit metric", ("fit", "-c", "metric.yaml"), "fit", ("runs/metric",)),
        Job("quality", ("quality", "-c", "metric.yaml", "--quality.input=judged.jsonl"), "fit metric",
            ("runs/metric/quality",), ("runs/metric/checkpoints", "cache")),
        Job("quality of a run", ("quality", "-c", "metric.yaml", f"--quality.run={_RUN}"), "fit metric",
            (f"{_RUN}/results", f"{_RUN}/examples", f"{_RUN}/record.json"), ("runs/metric/checkpoints",)),
        Job("likelihood of a run", ("score", "-c", "teacher.yaml", f"--replies_of={_RUN}"), "fit",
            (f"{_RUN}/results", f"{_RUN}/examples", f"{_RUN}/record.json")),
        Job("compare", ("compare", _RUN, f"{_RUN}@untrained", "--samples=200", "--output=compared"), "fit",
            ("compared",)),
        Job("report", ("report", "--runs=[runs]", "--output=tables", "--records=true"), "fit", ("tables",)),
        Job("human export", ("human", "export", f"--systems={{first: {_RUN}}}", "--tasks=[ssa]", "--contexts=6",
                             "--output=rating"), "fit", ("rating",), once=True),
        Job("sweep", ("sweep", "-c", "student.yaml", "--grid", "model.loss.alpha=[0,0.5]", "--sweep.name=alpha"),
            "score", ("runs/alpha/points.csv", *(f"runs/alpha/alpha={one},seed=3/results" for one in (0, 0.5)))),
    )
}  # fmt: skip


def write_inputs(folder: Path) -> Path:
    """Write models, dialogues and experiments, all by relative paths, so that copies of the folder run alike."""
    import torch

    from teacher.tiny_models import MAKERS

    write_encoder(folder / "encoder", WORDS)
    torch.manual_seed(0)
    model, tokenizer = MAKERS["gpt2"](folder / "gpt2")
    model.save_pretrained(folder / "gpt2")
    tokenizer.save_pretrained(folder / "gpt2")
    for seed, (name, count) in enumerate({"train": 10, "val": 6, "one": 6}.items()):
        write_dialogues(folder / f"{name}.jsonl", count, 5, seed, name)
    for name, text in {
        "teacher": TEACHER, "fit_teacher": FIT_TEACHER, "student": STUDENT, "metric": METRIC,
    }.items():  # fmt: skip
        (folder / f"{name}.yaml").write_text(text, encoding="utf-8")
    draw = random.Random(5)
    said = [" ".join(draw.choices(WORDS, k=draw.randint(2, 8))) for _ in range(200)]
    rows = [{"response": f"{text} {i}", "source": "llm" if i % 7 else "us"} for i, text in enumerate(said[:100])]
    _lines(folder / "r.jsonl", rows)
    _lines(folder / "more.jsonl", [{"response": text, "source": "more"} for text in said[100:130]])
    contexts = [said[i : i + 3] for i in range(130, 160, 3)]
    _lines(folder / "contexts.jsonl", contexts)
    _lines(folder / "judged.jsonl", [{"context": one[:2], "response": one[2]} for one in contexts])
    _lines(folder / "asked.jsonl", [{"context": one[:2], "candidates": [one[2], "yes", "no"]} for one in contexts])
    _lines(folder / "replies.jsonl", list(_replies(folder / "train.jsonl")))
    return folder


def _replies(dialogues: Path) -> list[dict[str, object]]:
    """Return two replies to every context of some dialogues, and the original, each with a likelihood."""
    lines = []
    for line in dialogues.read_text(encoding="utf-8").splitlines():
        turns = json.loads(line)["turns"]
        for end in range(1, len(turns)):
            texts = (turns[end], f"yes {turns[end]}", f"no {turns[end]}")
            told = [{"text": text, "log_likelihood": -float(len(text)), "num_tokens": 5} for text in texts]
            lines.append({"context": turns[:end], "replies": told})
    return lines


def _lines(path: Path, records: list[object] | list[dict[str, object]] | list[list[str]]) -> None:
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")


class Workplace:
    """The state before and after every job, made once.

    Args:
        folder: where to; what is there already is kept.
        server: runs the jobs.
    """

    def __init__(self, folder: Path, server: object) -> None:
        self.folder, self._server = folder.absolute(), server

    def before(self, job: Job) -> Path:
        """Return the tree in which a job is started."""
        if job.after:
            return self.after(JOBS[job.after])[0]
        inputs = self.folder / "inputs"
        if not inputs.is_dir():
            write_inputs(self.folder / "inputs.tmp")
            (self.folder / "inputs.tmp").rename(inputs)
        return inputs

    def after(self, job: Job) -> tuple[Path, dict[str, float]]:
        """Return the tree that the job leaves when nothing happens, and how long it took and how much it changed."""
        place, note = self.folder / job.name.replace(" ", "-"), self.folder / f"{job.name.replace(' ', '-')}.json"
        if not note.is_file():
            shutil.rmtree(place, ignore_errors=True)
            shutil.copytree(self.before(job), place)
            found = self._server.run(list(job.words), place)  # type: ignore[attr-defined]
            assert found["status"] == 0, found["said"]
            note.write_text(json.dumps({"seconds": found["seconds"], "changes": found["changes"]}))
        return place, json.loads(note.read_text())
