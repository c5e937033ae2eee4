"""A plain Hugging Face loop in float32: what one writes by hand, padded to the longest text of the batch.

``AutoModel``, mean pooling, cosines times the scale, cross-entropy, AdamW, clipping and a linear schedule. For the
reference's step the same texts enter as two padded tensors, all contexts and all responses, and the loss is written
out: every positive against the negatives, and the teacher's distribution over the candidates.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import DataLoader
from transformers import AutoModel, AutoTokenizer, get_scheduler
from worker import Run, Stopwatch, Unavailable, serve

PACKAGES = ("torch", "transformers", "tokenizers")


class Loop:
    """Model, tokenizer and optimiser of one job."""

    def __init__(self, job: dict[str, Any]) -> None:
        self.job = job
        self.tokenizer = AutoTokenizer.from_pretrained(job["model"])
        self.model = AutoModel.from_pretrained(job["model"], dtype=torch.float32).to(job["device"]).train()
        self.tokens = self.computed = 0

    def encode(self, texts: list[str], longest: int, side: str) -> Tensor:
        """Return normalised mean vectors (n, d) of texts, padded to the longest of them, cut on one ``side``."""
        self.tokenizer.truncation_side = side
        inputs = self.tokenizer(texts, padding=True, truncation=True, max_length=longest, return_tensors="pt")
        inputs = inputs.to(self.job["device"])
        mask = inputs["attention_mask"].unsqueeze(-1).float()
        self.tokens += int(inputs["attention_mask"].sum())
        self.computed += inputs["attention_mask"].numel()
        hidden = self.model(**inputs).last_hidden_state
        return F.normalize((hidden * mask).sum(1) / mask.sum(1).clamp(min=1), dim=-1)

    def in_batch(self, batch: list[dict[str, Any]]) -> Tensor:
        """Return the cross-entropy of each pair's response among all responses of the batch."""
        contexts = self.encode([pair["text"] for pair in batch], self.job["context_tokens"], "left")
        responses = self.encode([pair["response"] for pair in batch], self.job["response_tokens"], "right")
        return F.cross_entropy(self.job["scale"] * contexts @ responses.T, torch.arange(len(batch)).to(contexts.device))

    def reference(self, batch: list[dict[str, Any]]) -> Tensor:
        """Return the loss of Kim et al. (2021): (1 - alpha) CE + alpha KD with shared random negatives."""
        own = sorted({text for pair in batch for text in pair["candidates"]})
        kept = set(own)
        negatives = [text for text in self.job["negatives"] if text not in kept]
        where = {text: column for column, text in enumerate(own)}
        contexts = self.encode([pair["text"] for pair in batch], self.job["context_tokens"], "left")
        scores = self.job["scale"] * contexts @ self.encode(own + negatives, self.job["response_tokens"], "right").T
        log_negatives = scores[:, len(own) :].logsumexp(dim=1)
        cross_entropies, transfers = [], []
        for row, pair in enumerate(batch):
            mine = scores[row, [where[text] for text in pair["candidates"]]]
            cross_entropies.append(F.softplus(log_negatives[row] - mine))
            log_all = torch.logaddexp(mine.logsumexp(0), log_negatives[row])
            teacher = torch.softmax(torch.tensor(pair["scores"], device=mine.device), dim=0)
            transfers.append(-(teacher * (mine - log_all)).sum())
        alpha = self.job["alpha"]
        return (1 - alpha) * torch.cat(cross_entropies).mean() + alpha * torch.stack(transfers).mean()

    def epoch(self, pairs: list[dict[str, Any]]) -> Iterator[Tensor]:
        """Train on all pairs once, yielding each step's loss."""
        loader = DataLoader(pairs, batch_size=self.job["batch_size"], shuffle=True, collate_fn=list)  # type: ignore[arg-type]
        optimizer = torch.optim.AdamW(self.model.parameters(), lr=5e-5, weight_decay=0.0)
        schedule = get_scheduler("linear", optimizer, 0, len(loader))
        step = self.reference if self.job["name"] == "reference_step" else self.in_batch
        for batch in loader:
            loss = step(batch)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
            yield loss.detach()


def prepare(job: dict[str, Any]) -> Run:
    """Return a round: one epoch over the job's pairs."""
    if job["name"] not in ("training", "reference_step"):
        raise Unavailable(f"not written for {job['name']}")
    torch.manual_seed(job["seed"])
    loop = Loop(job)

    def run(warm_up: bool) -> dict[str, Any]:
        pairs = job["pairs"][: job["warm_up"]] if warm_up else job["pairs"]
        loop.tokens = loop.computed = 0
        stopwatch = Stopwatch()
        stopwatch.start()
        losses = [float(loss) for loss in loop.epoch(pairs)]
        stopwatch.stop()
        return {**stopwatch.elapsed, "units": len(pairs), "steps": len(losses), "tokens": loop.tokens,
                "computed": loop.computed, "loss": losses}  # fmt: skip

    return run


if __name__ == "__main__":
    serve(prepare, PACKAGES)
