"""Useful work of a training step, and the machine's measured peak.

A multiplication and an addition with every weight that is no look-up table, forward, and twice that backward: 6 FLOPs
a weight and token (Kaplan et al. 2020, section 2.1). Padding is no useful work, and attention's own products, which
grow with the square of the length, are not counted.
"""

from __future__ import annotations

import time

import torch
from torch import nn

SIDE = 2048


def working_parameters(tower: nn.Module) -> int:
    """Return the number of a tower's parameters outside its embeddings."""
    return sum(p.numel() for name, p in tower.named_parameters() if ".embeddings." not in f".{name}")


def training_flops(parameters: int, tokens: int) -> int:
    """Return the useful FLOPs of training on so many real tokens, each seen by so many parameters."""
    return 6 * parameters * tokens


def matmul_flops_per_second(dtype: torch.dtype, device: str = "cpu", repeats: int = 10) -> tuple[float, float]:
    """Return the median rate of a 2048 x 2048 x 2048 matrix product, and the wall seconds that all products took."""
    left, right = (torch.randn(SIDE, SIDE, device=device).to(dtype) for _ in range(2))
    times = []
    for _ in range(repeats + 1):
        begun = time.perf_counter()
        left @ right
        if device != "cpu":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - begun)
    measured = sorted(times[1:])
    return 2 * SIDE**3 / measured[len(measured) // 2], sum(times)
