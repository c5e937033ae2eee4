"""A student as a folder that can be moved: weights as safetensors, the backbone's configuration, the tokenizer."""

from __future__ import annotations

import hashlib
import json
from copy import deepcopy
from pathlib import Path

from g2r_lightning.errors import G2RError
from g2r_lightning.student.bi_encoder import BiEncoder
from g2r_lightning.student.encoders import StudentEncoder
from g2r_lightning.student.poly_encoder import PolyEncoder
from g2r_lightning.student.text import StudentText

SETTINGS = "student.json"
WEIGHTS = "model.safetensors"
SCHEMA_VERSION = 1


def save_student(encoder: StudentEncoder, text: StudentText, folder: Path) -> None:
    """Write encoder and text into a folder, which is created; the weights in float32, as they are read again."""
    from safetensors.torch import save_model

    encoder = _float32(encoder)
    folder.mkdir(parents=True, exist_ok=True)
    encoder.response_tower.model.config.save_pretrained(str(folder))
    text.save(folder)
    save_model(encoder, str(folder / WEIGHTS))  # knows that shared towers are one set of tensors
    settings = {"schema_version": SCHEMA_VERSION, "encoder": encoder.describe(), "text": text.settings()}
    (folder / SETTINGS).write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")


def load_student(folder: Path) -> tuple[StudentEncoder, StudentText]:
    """Read a folder of :func:`save_student`; the encoder comes in evaluation mode, float32, on the CPU.

    Raises:
        G2RError: the folder is no such folder, or is damaged.
    """
    from safetensors.torch import load_model

    try:
        settings = json.loads((folder / SETTINGS).read_text(encoding="utf-8"))
        version = settings.get("schema_version", 1)  # the first folders did not tell
        if version != SCHEMA_VERSION:
            raise G2RError(
                f"{folder}: a student of schema version {version}, this release reads {SCHEMA_VERSION}; build it again "
                "from its checkpoint, or use the release that wrote it"
            )
        options = dict(settings["encoder"])
        kind = {"BiEncoder": BiEncoder, "PolyEncoder": PolyEncoder}[options.pop("class")]
        encoder: StudentEncoder = kind(name_or_path=str(folder), pretrained=False, **options)
        load_model(encoder, str(folder / WEIGHTS))
        text = StudentText(**settings["text"]).bind(str(folder))
    except FileNotFoundError as error:
        raise G2RError(f"{folder}: no student here ({Path(str(error.filename)).name} is missing)") from error
    except (ValueError, AttributeError, KeyError, TypeError, RuntimeError) as error:
        raise G2RError(f"{folder}: the student is damaged ({error}); build it again from its checkpoint") from error
    return encoder.eval(), text


def saved_weights_hash(encoder: StudentEncoder) -> str:
    """Return the hash that the weights would have in a folder of :func:`save_student`."""
    import tempfile

    from safetensors.torch import save_model

    with tempfile.TemporaryDirectory() as folder:
        save_model(_float32(encoder), f"{folder}/{WEIGHTS}")
        return weights_hash(Path(folder) / WEIGHTS)


def _float32(encoder: StudentEncoder) -> StudentEncoder:
    """Return an encoder whose weights are float32: itself, or a copy where it was trained in another type."""
    import torch

    same = all(weight.dtype == torch.float32 for weight in encoder.parameters())
    return encoder if same else deepcopy(encoder).float()


def weights_hash(path: Path) -> str:
    """Return a hash of the tensors in a file of weights, whatever their order in it.

    The file's own hash would not do: safetensors writes the names of shared tensors in any order.

    Raises:
        G2RError: the file is missing or damaged.
    """
    import torch
    from safetensors import SafetensorError, safe_open

    digest = hashlib.blake2b(digest_size=16)
    try:
        with safe_open(str(path), framework="pt") as weights:
            for name in sorted(weights.keys()):
                tensor = weights.get_tensor(name)
                digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
                digest.update(tensor.contiguous().view(-1).view(torch.uint8).numpy().data)
    except (OSError, SafetensorError) as error:
        raise G2RError(f"{path}: cannot be read ({error})") from error
    return digest.hexdigest()
