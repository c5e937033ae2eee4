"""A learned metric without references, in the form of MaUdE (Sinha et al. 2020, section 3).

How good is this response, where nobody has said what a good one would be? A small network reads vectors of a frozen
encoder, one an utterance, and tells how likely the response is a true one:

1. every utterance's vector is projected to 300 dimensions;
2. an LSTM of two layers reads the context, one utterance a step; the largest value of each dimension over all steps is
   kept, and a bilinear form maps it into the space of responses: h. (A bilinear form is hᵀr with h = Wm; its terms are
   the products h⊙r that the classifier is given.);
3. a classifier with one hidden layer of 200 sees [h; r; |h - r|; h⊙r] and gives a logit, whose sigmoid is the score.

Nothing here knows of texts: :mod:`g2r_lightning.studies.unreferenced` brings encoder, training and files.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence


class UnreferencedMetric(nn.Module):
    """Score responses in their contexts, from the vectors of single utterances.

    Args:
        dimension: d, size of an utterance's vector.
        projection: p, size that it is projected to.
        memory: size of the LSTM's state.
        layers: of the LSTM.
        hidden: size of the classifier's hidden layer.
        dropout: on the projected vectors, between the LSTM's layers and in the classifier.
    """

    def __init__(
        self,
        dimension: int,
        projection: int = 300,
        memory: int = 300,
        layers: int = 2,
        hidden: int = 200,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        self.project = nn.Linear(dimension, projection)
        self.drop = nn.Dropout(dropout)
        self.reader = nn.LSTM(projection, memory, layers, batch_first=True, dropout=dropout if layers > 1 else 0.0)
        self.match = nn.Linear(memory, projection, bias=False)
        self.classifier = nn.Sequential(
            nn.Linear(4 * projection, hidden), nn.ReLU(), nn.Dropout(dropout), nn.Linear(hidden, 1)
        )

    def forward(self, contexts: Tensor, lengths: Tensor, responses: Tensor, owners: Tensor) -> Tensor:
        """Return the logit of every response: (N,) float.

        Args:
            contexts: (B, T, d) float, vectors of each context's utterances, oldest first; what stands behind a
                context's end is not looked at.
            lengths: (B,) int64, utterances of each context, at least 1.
            responses: (N, d) float, vectors of the responses.
            owners: (N,) int64, the context that each response answers, 0 to B - 1.
        """
        answers = self.drop(self.project(responses))
        expected = self.read(contexts, lengths)[owners]
        pairs = torch.cat([expected, answers, (expected - answers).abs(), expected * answers], dim=1)
        logits: Tensor = self.classifier(pairs).squeeze(1)
        return logits

    def read(self, contexts: Tensor, lengths: Tensor) -> Tensor:
        """Return h, what each context asks for, in the space of projected responses: (B, p) float."""
        told = self.drop(self.project(contexts))
        packed = pack_padded_sequence(told, lengths.cpu(), batch_first=True, enforce_sorted=False)
        states, _ = pad_packed_sequence(
            self.reader(packed)[0], batch_first=True, padding_value=-torch.inf, total_length=contexts.shape[1]
        )
        matched: Tensor = self.match(states.amax(dim=1))
        return matched

    @torch.no_grad()
    def start_from(self, vectors: Tensor) -> None:
        """Let the projection begin as the principal components of some utterances, instead of at random.

        Args:
            vectors: (n, d) float, n and d at least the size of the projection.
        """
        weight, bias = principal_projection(vectors, self.project.out_features)
        self.project.weight.copy_(weight)
        self.project.bias.copy_(bias)


def principal_projection(vectors: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Return the linear map onto the principal components.

    Their variances keep their ratios; all are scaled by one factor, so that a projected vector's squared length is
    ``size`` on average: inputs as an LSTM expects them, whatever the encoder's scale.

    Args:
        vectors: (n, d) float.
        size: p, at most the smaller of n and d.

    Returns:
        Weight (p, d) and bias (p,), float32: ``weight @ x + bias``. Each component's largest entry is positive, so that
        the map does not depend on the eigenvectors' arbitrary signs.

    Raises:
        ValueError: fewer vectors or dimensions than components.
    """
    if size > min(vectors.shape):
        raise ValueError(f"{size} principal components of {vectors.shape[0]} vectors of {vectors.shape[1]} dimensions")
    wide = vectors.double()
    centre = wide.mean(dim=0)
    spread, directions = torch.linalg.eigh((wide - centre).T @ (wide - centre) / len(wide))
    directions = directions[:, -size:].flip(1).T
    largest = directions.gather(1, directions.abs().argmax(dim=1, keepdim=True))
    scale = (size / spread[-size:].sum().clamp(min=1e-12)).sqrt()
    weight = directions * largest.sign() * scale
    return weight.float(), -(weight @ centre).float()


def balanced_cross_entropy(logits: Tensor, true: Tensor, counts: Tensor | None = None) -> Tensor:
    """Return the binary cross-entropy in nats, true and false responses counting half each, however many there are.

    So a score of 1/2 lies between the two, and one more way of spoiling responses does not lower all scores.

    >>> round(balanced_cross_entropy(torch.zeros(4), torch.tensor([True, False, False, False])).item(), 4)
    0.6931

    Args:
        logits: (N,) float.
        true: (N,) bool; a side without any counts nothing.
        counts: (2,) what the sums over true and false ones are divided by; their numbers here unless told. Processes
            that share a step give the mean numbers of all, so that the mean of their losses is that of the whole step.
    """
    terms = binary_cross_entropy_with_logits(logits, true.to(logits.dtype), reduction="none")
    sums = torch.stack([terms[true].sum(), terms[~true].sum()])
    counts = side_counts(true) if counts is None else counts
    return (sums[counts > 0] / counts[counts > 0]).mean()


def side_counts(true: Tensor) -> Tensor:
    """Return how many responses are true and how many false: (2,) float32."""
    return torch.stack([true.sum(), (~true).sum()]).float()
