"""An exported student that takes the place of the PyTorch one wherever something is encoded or scored.

The folder (written by :mod:`g2r_lightning.inference.export`) holds one graph for all texts or one each for contexts and
responses, the tokenizer, ``student.json`` as any saved student has it, and ``manifest.json``: of which weights it was
made, in which precision, what that costs in quality, and the checksum of every file. All of them are compared when the
folder is read: a graph with a flipped bit answers too, only worse.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

import torch
from torch import Tensor, nn

from g2r_lightning.cpu import cpu_multiplies_bf16
from g2r_lightning.errors import ConfigError, G2RError
from g2r_lightning.index import encode_rows
from g2r_lightning.inference.graphs import CONTEXTS, RESPONSES, TEXTS
from g2r_lightning.inference.runtimes import SUFFIXES, Format, OpenVinoGraph, Precision, Run, open_graph
from g2r_lightning.paths import inside
from g2r_lightning.store.hashing import described_file
from g2r_lightning.store.json_file import unsealed
from g2r_lightning.student.encoders import StudentEncoder
from g2r_lightning.student.persistence import SETTINGS, WEIGHTS, saved_weights_hash, weights_hash
from g2r_lightning.student.poly_encoder import attended_scores, attending
from g2r_lightning.student.text import StudentText

MANIFEST = "manifest.json"
SCHEMA_VERSION = 1
FORMATS: tuple[Format, ...] = get_args(Format)
DEPLOYED = "deployed"
TOKENS_AT_ONCE = 1024
_NEEDED = ("files", "format", "precision", "dimension", "weights")


class DeployedEncoder(nn.Module):
    """Encode and score as the student that was exported; a module without parameters, so that it fits its place.

    Args:
        contexts: the graph of contexts.
        responses: the graph of responses; the same one where a student has one for both.
        settings: of the student (``describe()``).
        dimension: d.
        pad_id: token id of the padding.
        token_budget: padded tokens of one pass; texts are sorted by length into such passes.
    """

    def __init__(
        self,
        contexts: Run,
        responses: Run,
        settings: dict[str, Any],
        dimension: int,
        pad_id: int,
        token_budget: int = TOKENS_AT_ONCE,
    ) -> None:
        super().__init__()
        self.settings = settings
        self.dimension = dimension
        self.token_budget = token_budget
        self._contexts, self._responses, self._pad_id = contexts, responses, pad_id

    def encode_contexts(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Return (B, d) or (B, m, d) float32 on the CPU for contexts of (B, L) tokens."""
        codes = self.settings.get("codes")
        shape = (self.dimension,) if codes is None else (int(codes), self.dimension)
        return self._encode(self._contexts, input_ids, attention_mask, shape)

    def encode_responses(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Return (U, d) float32 on the CPU for responses of (U, L) tokens."""
        return self._encode(self._responses, input_ids, attention_mask, (self.dimension,))

    @attending
    def score(self, contexts: Tensor, responses: Tensor) -> Tensor:
        """Return (B, U) float scores of encoded contexts and (U, d) encoded responses."""
        return contexts @ responses.T if contexts.ndim == 2 else attended_scores(contexts, responses)

    def describe(self) -> dict[str, Any]:
        """Return what a loader must know besides the weights."""
        return dict(self.settings)

    def prepare(self, longest: int) -> None:
        """Make ready for single contexts of up to so many tokens, where the runtime has a quicker way for them."""
        if isinstance(self._contexts, OpenVinoGraph):
            self._contexts.fix(longest)

    def _encode(self, run: Run, ids: Tensor, mask: Tensor, shape: Sequence[int]) -> Tensor:
        def flat(some_ids: Tensor, some_mask: Tensor) -> Tensor:
            """Return one pass's vectors, (N, codes · d)."""
            vectors = run(some_ids.cpu().numpy(), some_mask.cpu().numpy())
            return torch.from_numpy(vectors.reshape(len(vectors), -1))

        lengths = mask.sum(dim=1).tolist()
        if 0 < ids.numel() <= self.token_budget:
            width = max(*lengths, 1)
            return flat(ids[:, :width], mask[:, :width]).view(-1, *shape)
        rows = [row[:length].to(torch.int32).cpu().numpy() for row, length in zip(ids, lengths, strict=True)]
        vectors = encode_rows(flat, rows, self._pad_id, torch.device("cpu"), token_budget=self.token_budget)
        return vectors.view(len(ids), *shape)


def load_deployed(folder: Path) -> tuple[DeployedEncoder, StudentText]:
    """Read an export.

    Raises:
        G2RError: it is none, of another version, damaged, or made for a CPU with other instructions.
        ConfigError: its runtime is not installed.
    """
    manifest = read_manifest(folder)
    verify(folder, manifest)
    form, precision = manifest["format"], manifest["precision"]
    if precision == "bf16" and not cpu_multiplies_bf16():
        raise G2RError(
            f"{folder}: made for a CPU with bfloat16 instructions, which this one lacks; export it in float32"
        )
    try:
        settings = json.loads((folder / SETTINGS).read_text(encoding="utf-8"))
        text = StudentText(**settings["text"]).bind(str(folder))
        runs = [open_graph(_graph(folder, name, form), form, precision) for name in _graph_names(folder, form)]
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise G2RError(f"{folder}: cannot be read ({error}); export it again") from error
    return DeployedEncoder(runs[0], runs[-1], settings["encoder"], manifest["dimension"], text.pad_id), text


def deployed_folder(index: Path, name_or_path: str | Path) -> Path:
    """Return the export that is meant: ``openvino`` or ``onnx`` lies within the index, anything else is a folder.

    Raises:
        ConfigError: there is none.
    """
    if name_or_path in FORMATS:
        folder = index / DEPLOYED / str(name_or_path)
        how = f"make it with `export --format={name_or_path}`, or give the folder of an export"
    else:
        folder = Path(name_or_path).expanduser()
        how = f"give {' or '.join(FORMATS)}, or the folder of an export"
    if not (folder / MANIFEST).is_file():
        raise ConfigError(f"{folder}: no exported encoder here; {how}")
    return folder


def load_for_index(index: Path, name_or_path: str | Path) -> tuple[DeployedEncoder, StudentText]:
    """Read the export that is to answer from an index.

    Args:
        index: the index's folder.
        name_or_path: see :func:`deployed_folder`.

    Raises:
        G2RError: there is none, it is damaged, or was made of another student than the index.
    """
    folder = deployed_folder(index, name_or_path)
    manifest = read_manifest(folder)
    student = index / "student"
    if not student.is_dir():
        raise G2RError(f"{student}: missing; build the index again")
    if manifest["weights"] != weights_hash(student / WEIGHTS):
        raise G2RError(
            f"{folder}: made of other weights than {index}, whose vectors it cannot be compared with; export the "
            "index's checkpoint, or build the index again"
        )
    if _settings(folder) != _settings(student):
        raise G2RError(f"{folder}: its student reads or scores texts otherwise than that of {index}; export it again")
    return load_deployed(folder)


def load_for_student(folder: Path, encoder: StudentEncoder, text: StudentText) -> DeployedEncoder:
    """Read the export that is to encode in a student's place.

    Args:
        folder: of the export.
        encoder: the student.
        text: its way with texts.

    Raises:
        G2RError: there is none, it is damaged, or was made of another student.
    """
    if read_manifest(folder)["weights"] != saved_weights_hash(encoder):
        raise G2RError(f"{folder}: made of other weights than those of this student; export the same checkpoint again")
    deployed, read = load_deployed(folder)
    if deployed.describe() != encoder.describe() or read.fingerprint() != text.fingerprint():
        raise G2RError(f"{folder}: its student reads or scores texts otherwise than this one; export it again")
    return deployed


def read_manifest(folder: Path) -> dict[str, Any]:
    """Return what an export says of itself.

    Raises:
        G2RError: there is none here, or of another schema version, or its manifest is damaged.
    """
    path = folder / MANIFEST
    try:
        manifest = unsealed(path.read_text(encoding="utf-8"))
        version = manifest["schema_version"]
    except (FileNotFoundError, NotADirectoryError) as error:
        raise G2RError(f"{folder}: no exported encoder here; make one with `export --format=openvino`") from error
    except (ValueError, KeyError, TypeError) as error:
        raise G2RError(f"{path}: damaged ({error}); export it again") from error
    if "factory" in manifest:
        raise G2RError(f"{folder}: an index, no exported encoder; give {' or '.join(FORMATS)}, or an export's folder")
    if version != SCHEMA_VERSION:
        raise G2RError(f"{folder}: of schema version {version}, this release reads {SCHEMA_VERSION}; export it again")
    lacking = [key for key in _NEEDED if key not in manifest]
    if lacking:
        raise G2RError(f"{path}: not of an exported encoder, or damaged (no {', '.join(lacking)}); export it again")
    if manifest["format"] not in FORMATS or manifest["precision"] not in get_args(Precision):
        raise G2RError(f"{path}: unknown format {manifest['format']} or precision {manifest['precision']}")
    for name in manifest["files"]:
        inside(folder, name)
    return dict(manifest)


def verify(folder: Path, manifest: dict[str, Any]) -> None:
    """Compare every file of an export with its checksum.

    Raises:
        G2RError: names the files that are not as they were written.
    """
    files = manifest["files"]
    changed = [n for n in files if not (folder / n).is_file() or described(folder / n) != files[n]]
    if changed:
        raise G2RError(f"{folder}: changed or lost since they were written: {', '.join(changed)}; export it again")


def described(path: Path) -> dict[str, Any]:
    """Return size and checksum of a file."""
    return described_file(path)


def _settings(folder: Path) -> Any:
    try:
        held: dict[str, Any] = json.loads((folder / SETTINGS).read_text(encoding="utf-8"))
        return {key: value for key, value in held.items() if key != "schema_version"}  # the first ones did not tell
    except (OSError, ValueError, AttributeError) as error:
        raise G2RError(f"{folder / SETTINGS}: cannot be read ({error})") from error


def _graph(folder: Path, name: str, form: Format) -> Path:
    return folder / f"{name}{SUFFIXES[form]}"


def _graph_names(folder: Path, form: Format) -> Sequence[str]:
    return [TEXTS] if _graph(folder, TEXTS, form).is_file() else [CONTEXTS, RESPONSES]
