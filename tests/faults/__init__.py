"""Faults on purpose: a parent that forks commands, kinds of faults, and the judgement over what came of them."""
