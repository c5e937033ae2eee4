"""A student as a folder that sentence-transformers reads, and that gives the student's own vectors.

1. A ``Router`` has a route for contexts (``query``) and one for responses (``document``, the default), each with a
   ``Transformer`` of its own. One tower for both is written twice all the same: a context keeps its end and a response
   its beginning, and a tokenizer can do the one or the other.
2. What a student does to its pooled vectors becomes modules: ``Normalize``, and a ``Dense`` of one factor.
3. The folder is read again by the library, and appears if its vectors of real dialogues are the student's.

A context is one string there: its lines joined by the student's separator (:func:`joined`). A poly-encoder's contexts
are several vectors, which no sentence-transformers module makes: it has the route ``document`` alone.
"""

from __future__ import annotations

import json
import tempfile
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import metadata
from inspect import signature
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from g2r_lightning import __version__
from g2r_lightning.data.evaluation_set import CandidateList
from g2r_lightning.errors import G2RError
from g2r_lightning.extras import extra
from g2r_lightning.index import encode_rows
from g2r_lightning.inference.deployment import MANIFEST, SCHEMA_VERSION, described
from g2r_lightning.paths import replaced_folder
from g2r_lightning.store.json_file import write_json
from g2r_lightning.student.backbone import Backbone
from g2r_lightning.student.bi_encoder import BiEncoder
from g2r_lightning.student.encoders import StudentEncoder
from g2r_lightning.student.text import StudentText

FORMAT = "sentence-transformers"
TOLERANCE = 1e-5
MODULE_SETTINGS = "sentence_bert_config.json"
Side = Literal["query", "document"]


def export_sentence_transformer(
    folder: Path,
    encoder: StudentEncoder,
    text: StudentText,
    lists: Sequence[CandidateList],
    card: str,
    facts: Mapping[str, Any],
) -> dict[str, Any]:
    """Write the folder, replacing one that is there, and return its manifest.

    Args:
        folder: where to.
        encoder: the student, in evaluation mode, float32, on the CPU.
        text: its way with texts.
        lists: real contexts with their candidates, on which the vectors are compared.
        card: the text of README.md.
        facts: what else the manifest should tell (run, checkpoint).

    Raises:
        ConfigError: sentence-transformers is not installed.
        G2RError: its vectors are not the student's; says by how much, and nothing is written.
    """
    with extra(FORMAT):
        from sentence_transformers import SentenceTransformer
    with replaced_folder(folder) as fresh, tempfile.TemporaryDirectory() as scratch, _quiet():
        made = assembled(encoder, text, Path(scratch))
        made.save(str(fresh), create_model_card=False)
        for settings in fresh.rglob(MODULE_SETTINGS):
            _leave_out_pooler(settings, encoder.response_tower)
        (fresh / "README.md").write_text(card, encoding="utf-8")
        quality = differences(SentenceTransformer(str(fresh), device="cpu"), encoder, text, lists)
        wrong = {name: value for name, value in quality.items() if value > TOLERANCE}
        if wrong:
            raise G2RError(_refusal(wrong, text))
        files = sorted(path for path in fresh.rglob("*") if path.is_file())
        manifest = {
            "schema_version": SCHEMA_VERSION,
            "created_by": f"g2r_lightning {__version__}",
            "format": FORMAT,
            "dimension": encoder.dimension,
            "versions": {name: metadata.version(name) for name in (FORMAT, "transformers", "torch")},
            "quality": {"texts": len(lists), **quality},
            **facts,
            "files": {str(path.relative_to(fresh)): described(path) for path in files},
        }
        write_json(fresh / MANIFEST, manifest)
    return manifest


def joined(text: StudentText, lines: Sequence[str]) -> str:
    """Return a context as one string: its lines with the student's separator between them.

    Args:
        text: the student's way with texts.
        lines: of a context, as :meth:`StudentText.context_lines` gives them.
    """
    return separator(text).join(lines)


def separator(text: StudentText) -> str:
    """Return what stands between two lines of a context."""
    return text.separator if text.separator is not None else str(text.tokenizer.sep_token or "\n")


def assembled(encoder: StudentEncoder, text: StudentText, scratch: Path) -> Any:
    """Return the ``SentenceTransformer`` of a student.

    Args:
        encoder: the student.
        text: its way with texts.
        scratch: an empty folder, for files between.
    """
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Dense, Normalize, Router

    routes = {"document": _route("document", encoder.response_tower, text, scratch)}
    if isinstance(encoder, BiEncoder):
        routes = {"query": _route("query", encoder.context_tower, text, scratch), **routes}
    modules = [Router(routes, default_route="document")]
    if encoder.normalise:
        modules.append(Normalize())
    if encoder.output_scale != 1:
        size = encoder.dimension
        weight = encoder.output_scale * torch.eye(size)
        modules.append(Dense(size, size, bias=False, activation_function=torch.nn.Identity(), init_weight=weight))
    return SentenceTransformer(modules=modules, device="cpu", similarity_fn_name="dot")


def differences(
    made: Any, encoder: StudentEncoder, text: StudentText, lists: Sequence[CandidateList]
) -> dict[str, float]:
    """Return the largest difference of any component, for contexts and for responses.

    It is taken relative to the student's largest component where that is above 1.

    Args:
        made: the ``SentenceTransformer``.
        encoder: the student.
        text: its way with texts.
        lists: real contexts with their candidates.
    """
    responses = list(dict.fromkeys(response for one in lists for response in one.texts))
    ours = _encoded(encoder.encode_responses, text.encode_responses(responses), text.pad_id)
    theirs = made.encode_document(responses, **_PLAIN)
    found = {"responses": _largest(ours, theirs)}
    if isinstance(encoder, BiEncoder):
        contexts = [text.context_lines(one.example) for one in lists]
        ours = _encoded(encoder.encode_contexts, text.encode_contexts(contexts), text.pad_id)
        theirs = made.encode_query([joined(text, lines) for lines in contexts], **_PLAIN)
        found["contexts"] = _largest(ours, theirs)
    return found


_PLAIN = {"show_progress_bar": False, "convert_to_numpy": True}


def _route(side: Side, tower: Backbone, text: StudentText, scratch: Path) -> list[Any]:
    from sentence_transformers.sentence_transformer.modules import Pooling, Transformer

    folder = scratch / side
    tower.model.save_pretrained(str(folder))
    _save_tokenizer(side, text, folder)
    transformer = Transformer(str(folder), model_kwargs=_without_pooler(tower))
    return [transformer, Pooling(tower.dimension, pooling_mode=tower.pooling)]


def _save_tokenizer(side: Side, text: StudentText, folder: Path) -> None:
    """Write a tokenizer that cuts one side's texts as the student does; the student's own is left as it is."""
    from tokenizers import normalizers
    from transformers import AutoTokenizer

    text.save(folder)
    query = side == "query"
    tokenizer = AutoTokenizer.from_pretrained(
        str(folder),
        trust_remote_code=False,
        model_max_length=text.max_context_tokens if query else text.max_response_tokens,
        truncation_side="left" if query else "right",
        padding_side="right",
        split_special_tokens=not query,  # a marker within a response is plain text; in a context it parts the lines
    )
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.convert_ids_to_tokens(text.pad_id)
    if text.format.lower:
        own = tokenizer.backend_tokenizer.normalizer
        steps = [normalizers.Lowercase(), *([own] if own is not None else [])]
        tokenizer.backend_tokenizer.normalizer = normalizers.Sequence(steps)
    tokenizer.save_pretrained(str(folder))


def _without_pooler(tower: Backbone) -> dict[str, Any]:
    """Return what keeps transformers from adding a second, random vector that the student has not."""
    known = "add_pooling_layer" in signature(type(tower.model).__init__).parameters
    return {"add_pooling_layer": False} if known else {}


def _leave_out_pooler(path: Path, tower: Backbone) -> None:
    settings = json.loads(path.read_text(encoding="utf-8"))
    write_json(path, {**settings, "model_args": _without_pooler(tower)}, seal=False)


def _encoded(encode: Any, rows: Iterator[list[int]], pad_id: int) -> Tensor:
    tokens = [np.asarray(ids, np.int32) for ids in rows]
    return encode_rows(encode, tokens, pad_id, torch.device("cpu"))


def _largest(ours: Tensor, theirs: Any) -> float:
    own = ours.numpy()
    return float(np.abs(own - theirs).max() / max(1.0, float(np.abs(own).max())))


def _refusal(wrong: Mapping[str, float], text: StudentText) -> str:
    told = ", ".join(f"{name} by {value:.1g}" for name, value in wrong.items())
    reason = ""
    if "contexts" in wrong:
        reason = (
            f"; the separator {separator(text)!r} between a context's lines may merge with its neighbours in this "
            "tokenizer (model.init_args.text.init_args.separator)"
        )
    return f"sentence-transformers would give other vectors than the student ({told}, {TOLERANCE} at most){reason}"


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence the libraries' bars and reports about folders that were written a moment ago."""
    from transformers.utils import logging

    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module=r"sentence_transformers\..*|transformers\..*")
            yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()
