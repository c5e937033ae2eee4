"""This package's own ways, as a user runs them.

The Lightning trainer over its data module, sampler and student; ``encode_rows`` over its tokens; ``full_set_ranks``.

A worker like those of the peers (``peers/worker.py``). Nothing here is tuned beside the settings that an experiment's
YAML holds; the trainer goes without logger and checkpoints, as the peers' do.
"""

from __future__ import annotations

import inspect
import json
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch.optim import AdamW

from flops import matmul_flops_per_second, training_flops, working_parameters
from g2r_lightning.data import AugmentedDialogueDataModule, CandidateBatch, DialogueDataModule, NegativeSampling
from g2r_lightning.data.evaluation_set import candidate_lists
from g2r_lightning.dialogue import Candidate, Dialogue, Example
from g2r_lightning.dialogue.readers.base import DialogueReader, Skip
from g2r_lightning.errors import G2RError
from g2r_lightning.index import encode_rows
from g2r_lightning.index.encode import TOKENS_AT_ONCE
from g2r_lightning.losses import G2RLoss
from g2r_lightning.metrics import full_set_ranks, mean_reciprocal_rank, recall_at_k
from g2r_lightning.optimisation import Schedule
from g2r_lightning.student import BiEncoder, RetrievalStudent, StudentText
from peers.worker import Run, Stopwatch, Unavailable, peak_memory, reset_peak_memory, serve

PACKAGES = ("torch", "lightning", "transformers", "torchmetrics", "faiss-cpu", "numpy", "openvino", "onnxruntime")
PRECISION = {"float32": "32-true", "bfloat16": "bf16-mixed"}
BUDGET_OF_MEMORY = 2048  # tokens of one pass with cached gradients


class Pairs(DialogueReader):
    """Read a job's pairs, each a dialogue of its context's utterances and the response, with its candidates."""

    def parse(self) -> Iterator[tuple[int, Dialogue] | Skip]:
        """Yield a dialogue a pair."""
        for number, pair in enumerate(json.loads(Path(self.path).read_text(encoding="utf-8")), start=1):
            turn = len(pair["context"])
            own = tuple(
                Candidate(text, "original" if text == pair["response"] else "generated", given_ll=score)
                for text, score in zip(pair.get("candidates", ()), pair.get("scores", ()), strict=True)
            )
            dialogue = Dialogue(
                id=str(number), dataset="benchmark", turns=(*pair["context"], pair["response"]), targets=(turn,),
                candidates={turn: own} if own else {},
            )  # fmt: skip
            yield number, dialogue


class Watch(Callback):
    """Time the loop alone, from before the first batch is drawn to after the last step, and count tokens."""

    def __init__(self, memory: bool = False) -> None:
        self.stopwatch = Stopwatch()
        self.tokens = self.computed = self.steps = self.before = self.peak = 0
        self.losses: list[float] = []
        self.memory = memory

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:  # noqa: ARG002
        """Begin."""
        if self.memory:
            self.before = reset_peak_memory()
        self.stopwatch.start()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: CandidateBatch, batch_idx: int  # noqa: ARG002
    ) -> None:  # fmt: skip
        """Count the real tokens that the step had to read."""
        self.steps += 1
        self.tokens += int(batch.context_mask.sum() + batch.response_mask.sum())
        self.losses.append(float(outputs["loss"]))

    def count(self, tower: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:  # noqa: ARG002
        """Count the tokens of a pass, padding included; a forward pre-hook of a tower."""
        self.computed += inputs[0].numel()

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:  # noqa: ARG002
        """End."""
        self.stopwatch.stop()
        if self.memory:
            self.peak = peak_memory()


def student(job: dict[str, Any]) -> RetrievalStudent:
    """Return the student of an experiment: one MiniLM for both sides, cosines times the scale."""
    options: dict[str, Any] = {}
    if job["way"] == "cached":
        if "cached_gradients" not in inspect.signature(BiEncoder).parameters:
            raise Unavailable("this version has no option cached_gradients")
        options = {"cached_gradients": True, "token_budget": BUDGET_OF_MEMORY}
    return RetrievalStudent(
        BiEncoder(job["model"], normalise=True, output_scale=job["scale"] ** 0.5, **options),
        StudentText(
            history=job["history"], max_context_tokens=job["context_tokens"], max_response_tokens=job["response_tokens"]
        ),
        G2RLoss(alpha=job["alpha"]),
        lambda parameters: AdamW(parameters, lr=5e-5, weight_decay=0.0, fused=True),
        Schedule("linear", warmup_steps=0),
    )


def data_module(job: dict[str, Any], pairs: list[dict[str, Any]], name: str) -> DialogueDataModule:
    """Return the data module of an experiment over these pairs."""
    path = Path(job["scratch"]) / f"{job['name']}-{job['way']}-{name}.json"
    path.write_text(json.dumps(pairs), encoding="utf-8")
    random = job.get("random_negatives", 0)
    options: dict[str, Any] = {
        "train": [Pairs(str(path))],
        "batch_size": job["batch_size"],
        "negatives": NegativeSampling(random=random, in_batch=random == 0),
        "seed": job["seed"],
        "cache_dir": job["scratch"],
        "drop_leaks": False,
        "length_grouping": job.get("length_grouping", True),
    }
    if "candidates" in pairs[0]:
        return AugmentedDialogueDataModule(
            store=None,
            teacher_score="given_ll",
            max_candidates=max(len(pair["candidates"]) for pair in pairs),
            **options,
        )
    return DialogueDataModule(**options)


def training(job: dict[str, Any]) -> Run:
    """Return a round of training: one epoch over the job's pairs, by the Lightning trainer."""
    if job["way"] == "bfloat16" and not job["bfloat16"]:
        raise Unavailable("this machine is slow in bfloat16")
    model = student(job)
    parameters = working_parameters(model.encoder.response_tower.model)
    memory = job["name"] == "memory"

    def run(warm_up: bool) -> dict[str, Any]:
        pairs = job["pairs"][: job["warm_up"]] if warm_up else job["pairs"]
        watch = Watch(memory)
        counting = model.encoder.response_tower.register_forward_pre_hook(watch.count)
        limit = job.get("steps") or 1.0
        trainer = Trainer(
            accelerator="cpu" if job["device"] == "cpu" else "gpu", devices=1, max_epochs=1, limit_train_batches=limit,
            precision=PRECISION.get(job["way"], "32-true"), gradient_clip_val=1.0, logger=False, callbacks=[watch],
            enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
        )  # fmt: skip
        trainer.fit(model, data_module(job, pairs, "warm-up" if warm_up else "round"))
        counting.remove()
        seconds = watch.stopwatch.elapsed["seconds"]
        found = {
            **watch.stopwatch.elapsed, "units": min(len(pairs), watch.steps * job["batch_size"]), "steps": watch.steps,
            "tokens": watch.tokens, "computed": watch.computed, "loss": watch.losses,
            "flops_per_second": training_flops(parameters, watch.tokens) / seconds,
        }  # fmt: skip
        return {**found, "before": watch.before, "peak": watch.peak} if memory else found

    return run


def encoding(job: dict[str, Any]) -> Run:
    """Return a round of encoding: a file of texts, one a line, to a file of vectors."""
    out = f"{job['scratch']}/encoding-{job['way']}.npy"
    kind, _, precision = job["way"].partition("-")
    encoder, text, budget = deployed(job, kind, precision) if kind in ("openvino", "onnx") else in_torch(job)

    def run(warm_up: bool) -> dict[str, Any]:
        stopwatch = Stopwatch()
        stopwatch.start()
        texts = Path(job["texts"]).read_text(encoding="utf-8").splitlines()
        texts = texts[: job["warm_up"]] if warm_up else texts
        rows = [np.asarray(row, np.int32) for row in text.encode_responses(texts)]
        device = torch.device(job["device"])
        np.save(out, encode_rows(encoder.encode_responses, rows, text.pad_id, device, token_budget=budget).numpy())
        stopwatch.stop()
        return {**stopwatch.elapsed, "units": len(texts), "tokens": sum(map(len, rows)), "vectors": out}

    return run


def in_torch(job: dict[str, Any]) -> tuple[Any, StudentText, int]:
    """Return the student, its text and the token budget of a pass; in bfloat16 its weights are so too."""
    if job["way"] == "bfloat16" and not job["bfloat16"]:
        raise Unavailable("this machine is slow in bfloat16")
    model = student(job).eval().to(job["device"])
    if job["way"] == "bfloat16":
        model.encoder.to(torch.bfloat16)
    return model.encoder, model.text, TOKENS_AT_ONCE


def deployed(job: dict[str, Any], form: str, precision: str) -> tuple[Any, StudentText, int]:
    """Export the student to that runtime and return the export, its text and its own token budget.

    Raises:
        Unavailable: this version has no export, the runtime is not installed, or the export is not good enough.
    """
    try:
        from g2r_lightning.inference.deployment import load_deployed
        from g2r_lightning.inference.export import export_student
    except ImportError as error:
        raise Unavailable("this version has no deployment encoder") from error
    precision = precision or ("bf16" if form == "openvino" and job["bfloat16"] else "float32")
    model, folder = student(job).eval(), Path(job["scratch"]) / f"export-{form}-{precision}"
    examples = [
        Example(f"benchmark:{number}:1", tuple(pair["context"]), pair["response"])
        for number, pair in enumerate(job["pairs"])
    ]
    half = len(examples) // 2  # what an int8 export is calibrated on is not what it is measured on
    lines = [model.text.context_lines(example) for example in examples[half:]]
    responses = [example.response for example in examples[half:]]
    calibration = {
        "contexts": [np.asarray(row, np.int32) for row in model.text.encode_contexts(lines)],
        "responses": [np.asarray(r, np.int32) for r in model.text.encode_responses(responses)],
    }
    lists = candidate_lists(examples[:half], seed=job["seed"], count=20, most=half)
    try:
        export_student(folder, model.encoder, model.text, lists, form, precision, calibration)
        encoder, text = load_deployed(folder)
    except (G2RError, ImportError) as error:
        raise Unavailable(f"{form} {precision}: {error}") from error
    return encoder, text, encoder.token_budget


def evaluation(job: dict[str, Any]) -> Run:
    """Return a round of full-set evaluation: recall@1, 10, 100 and MRR of all contexts, embeddings given."""
    contexts, responses, gold = (torch.from_numpy(np.load(job[name])) for name in ("contexts", "responses", "gold"))
    contexts, responses, gold = (tensor.to(job["device"]) for tensor in (contexts, responses, gold))

    def run(warm_up: bool) -> dict[str, Any]:
        number = min(job["warm_up"], len(contexts)) if warm_up else len(contexts)
        stopwatch = Stopwatch()
        stopwatch.start()
        ranks = full_set_ranks(lambda c, r: c @ r.T, contexts[:number], responses, gold[:number])
        figures = {f"recall_at_{k}": recall_at_k(ranks, k) for k in job["ks"]} | {"mrr": mean_reciprocal_rank(ranks)}
        stopwatch.stop()
        return {**stopwatch.elapsed, "units": number, "figures": figures}

    return run


def peak(job: dict[str, Any]) -> Run:
    """Return a round of matrix products: the peak that a training step's share is taken of."""

    def run(warm_up: bool) -> dict[str, Any]:  # noqa: ARG001
        stopwatch = Stopwatch()
        stopwatch.start()
        kinds = ["float32", "bfloat16"] if job["bfloat16"] else ["float32"]
        rates = {kind: matmul_flops_per_second(getattr(torch, kind), job["device"])[0] for kind in kinds}
        stopwatch.stop()
        return {**stopwatch.elapsed, "units": len(kinds), "peak_flops_per_second": rates}

    return run


def prepare(job: dict[str, Any]) -> Run:
    """Choose by the job's name."""
    warnings.filterwarnings("ignore", ".*does not have many workers")
    torch.manual_seed(job["seed"])
    if job["way"] == "peak":
        return peak(job)
    return {"encoding": encoding, "evaluation": evaluation}.get(job["name"], training)(job)


if __name__ == "__main__":
    serve(prepare, PACKAGES)
