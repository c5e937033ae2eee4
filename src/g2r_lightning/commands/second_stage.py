"""The sections ``rules`` and ``rerank``, for all commands that answer."""

from __future__ import annotations

from g2r_lightning.configuration import ExperimentCLI
from g2r_lightning.errors import ConfigError
from g2r_lightning.inference.rerank import Reranker, TeacherReranker
from g2r_lightning.inference.rules import ReplyRules


def rerank_of(cli: ExperimentCLI, k: int, setting: str) -> Reranker | None:
    """Return the second stage, its model not read yet; ``None`` where the experiment has none.

    Args:
        cli: the command's configuration.
        k: how many replies the command gives.
        setting: what says so, for the error.

    Raises:
        G2RError: a setting of it is out of range; it ranks fewer than k replies; the teacher that it needs is missing.
    """
    if cli.config.get("rerank") is None:
        return None
    reranker: Reranker = cli.build("rerank")
    if isinstance(reranker, TeacherReranker) and reranker.teacher is None and cli.config.get("teacher") is not None:
        reranker.teacher = cli.build("teacher")
    reranker.check_k(k, setting)
    return reranker


def rules_of(cli: ExperimentCLI) -> ReplyRules:
    """Return the section ``rules``.

    Raises:
        ConfigError: a rule is out of range.
    """
    try:
        return ReplyRules(**vars(cli.config.rules))
    except ValueError as error:
        raise ConfigError(str(error)) from error
