"""What the CPU can do: which instructions it has, and whether bfloat16 is among the fast ones."""

from __future__ import annotations

from typing import Any

import torch


def cpu_flags() -> list[str]:
    """Return the names of the instruction sets that the CPU has, as torch sees them; sorted."""
    return sorted(name for name, value in _capabilities().items() if value is True)


def cpu_name() -> str:
    """Return what the CPU calls itself."""
    return str(_capabilities().get("cpu_name", "unknown"))


def cpu_multiplies_bf16() -> bool:
    """Whether the CPU has matrix instructions for bfloat16; without them it is a hundred times slower than float32."""
    return bool({"avx512_bf16", "amx_bf16"} & set(cpu_flags()))


def _capabilities() -> dict[str, Any]:
    able: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()  # torch 2.9
    return able
