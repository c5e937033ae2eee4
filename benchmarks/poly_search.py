"""What a poly-encoder's proved answer costs beside a bi-encoder's: milliseconds, recall, how often one round suffices.

``python benchmarks/poly_search.py``: a poly-encoder of 64 codes is fitted on the shipped sample for 50 steps
(``experiments/quickstart.yaml`` under ``experiments/poly.yaml``), so that its codes attend to something; real responses
of ``$G2R_DATA`` (the shipped sample's without it), filled up with perturbed ones where there are too few, are encoded
by it. The bi-encoder is the same fitted tower with its pooled vectors: it searches the same vectors.

Ways are timed in turns, one context after the other, so that a busy moment meets all of them. Beside the ways that the
index takes stand those that it does not: brute force with the student's own scoring, and the other screen.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from g2r_lightning.errors import G2RError
from g2r_lightning.index import ResponseIndex, best_by_blocks, encode_rows
from g2r_lightning.index.assembly import assemble, assembled, open_vectors
from g2r_lightning.index.choosing import opened
from g2r_lightning.index.folder import load_indexed_student
from g2r_lightning.index.poly_screen import Screen
from g2r_lightning.index.poly_search import CodeSearch
from g2r_lightning.inference import Responder
from g2r_lightning.inference.rules import ReplyRules
from g2r_lightning.machine import native_precision
from g2r_lightning.student import BiEncoder, PolyEncoder, StudentText
from g2r_lightning.student.poly_encoder import attended_scores
from index_frontier import run, write_responses
from report import write_report
from texts import Texts

FIT = ("-c", "experiments/quickstart.yaml", "-c", "experiments/poly.yaml", "--run.test_untrained=false")
WARM_UP = 3
COMPARED = ("by float32", "by bfloat16", "brute force")  # slow ways, which fewer contexts tell enough of
Way = Callable[[int], tuple[Tensor, Tensor]]


def fitted(options: argparse.Namespace, work: Path) -> tuple[PolyEncoder, StudentText, str]:
    """Return the poly-encoder, its way with texts, and its folder; fitted where none is given and none is there.

    Raises:
        G2RError: the folder holds another kind of student.
    """
    if options.student is None and not (work / "poly" / "index" / "manifest.json").is_file():
        run("fit", *FIT, f"--run.root={work}", "--run.name=poly", "--run.test_trained=false")
    folder = Path(options.student) if options.student else work / "poly" / "index"
    encoder, text = load_indexed_student(folder)
    if not isinstance(encoder, PolyEncoder):
        raise G2RError(f"{folder}: a {type(encoder).__name__}, and this compares a PolyEncoder; name another --student")
    return encoder, text, str(folder)


def bi_encoder_of(poly: PolyEncoder, folder: str) -> BiEncoder:
    """Return the bi-encoder of the same towers.

    Args:
        poly: the student.
        folder: of its index, which has the towers' shape.
    """
    as_it_is = {name: poly.describe()[name] for name in ("shared", "pooling", "normalise", "output_scale")}
    bi = BiEncoder(f"{folder}/student", **as_it_is, pretrained=False)
    bi.context_tower, bi.response_tower = poly.context_tower, poly.response_tower
    return bi.eval()


def index_over(count: int, texts: Texts, student: str, work: Path, seed: int) -> tuple[ResponseIndex, dict[str, int]]:
    """Return the exact index of ``count`` responses, encoded or found encoded, and how many of each source it has."""
    place = work / str(count)
    place.mkdir(parents=True, exist_ok=True)
    sources = write_responses(place / "responses.jsonl", texts.responses, count, seed)
    folder = f"{place}/encoded"
    named = (f"--encode.input={place}/responses.jsonl", f"--encode.output={folder}", f"--encode.student={student}")
    run("encode", *named, f"--trainer.precision={native_precision('auto')}", "--encode.shard_size=4096")
    vectors = open_vectors(Path(folder))
    assemble(vectors, place, "float32")
    return opened(*assembled(place)), sources


def encoded(encode: Callable[..., Tensor], text: StudentText, contexts: Sequence[Any]) -> Tensor:
    """Return the vectors or codes of contexts."""
    rows = [np.array(row, np.int32) for row in text.encode_contexts([text.context_lines(one) for one in contexts])]
    return encode_rows(encode, rows, text.pad_id, torch.device("cpu"))


def timed(
    ways: dict[str, Way], contexts: int, compared: int
) -> dict[str, tuple[list[float], list[tuple[Tensor, Tensor]]]]:
    """Return milliseconds and answers of each way for each context, the ways in turns after a warm-up.

    Args:
        ways: by name; those that the index does not take are for comparison.
        contexts: how many.
        compared: how many of them the ways of :data:`COMPARED` answer too.
    """
    found: dict[str, tuple[list[float], list[tuple[Tensor, Tensor]]]] = {name: ([], []) for name in ways}
    for way in ways.values():
        for context in range(WARM_UP):
            way(context)
    for context in range(contexts):
        for name, way in ways.items():
            if context >= compared and name.endswith(COMPARED):
                continue
            begun = time.perf_counter()
            answer = way(context)
            found[name][0].append(1000 * (time.perf_counter() - begun))
            found[name][1].append(answer)
    return found


def searches(index: ResponseIndex, codes: Tensor, pooled: Tensor, k: int) -> dict[str, Way]:
    """Return the ways to search for one context."""
    other = CodeSearch(index.embeddings)
    index.codes.prepare(codes.shape[1])
    name = "float32" if index.codes.chosen["name"] == "bfloat16" else "bfloat16"
    other.use(Screen(index.embeddings, getattr(torch, name)))
    every = torch.from_numpy(np.asarray(index.embeddings))

    def dot(contexts: Tensor, responses: Tensor) -> Tensor:
        """Return inner products."""
        return contexts @ responses.T

    return {
        "bi-encoder, Flat": lambda at: index.search(pooled[at : at + 1], k, dot),
        "poly-encoder, proved": lambda at: index.search(codes[at : at + 1], k, attended_scores),
        "poly-encoder, one round": lambda at: index.search(codes[at : at + 1], k, attended_scores, exact=False),
        f"poly-encoder, proved, by {name}": lambda at: other.search(codes[at : at + 1], k),
        "poly-encoder, brute force": lambda at: best_by_blocks(codes[at : at + 1], every, k, attended_scores),
    }


def responders(
    index: ResponseIndex, poly: PolyEncoder, bi: BiEncoder, text: StudentText, talks: Sequence[Any], k: int
) -> dict[str, Way]:
    """Return the ways from a context's texts to replies."""
    one_round = ReplyRules(exact=False)
    bots = {
        "bi-encoder, Flat": (Responder(index, bi, text), None),
        "poly-encoder, proved": (Responder(index, poly, text), None),
        "poly-encoder, one round": (Responder(index, poly, text), one_round),
    }

    def way(bot: Responder, rules: ReplyRules | None) -> Way:
        """Return how one of them answers."""

        def answer(at: int) -> tuple[Tensor, Tensor]:
            """Return scores and rows of the replies."""
            replies = bot.respond(list(talks[at].context), k, rules=rules)
            return torch.tensor([[one.score for one in replies]]), torch.tensor([[one.row for one in replies]])

        return answer

    return {name: way(*bot) for name, bot in bots.items()}


def float64_best(index: ResponseIndex, codes: Tensor, k: int) -> list[list[int]]:
    """Return the rows of the k best of each context, all responses scored in float64, equal scores by row."""
    every, found = torch.from_numpy(np.asarray(index.embeddings)), []
    for own in codes:
        blocks = [attended_scores(own[None].double(), some.double())[0].float() for some in every.split(16_384)]
        found.append(torch.sort(torch.cat(blocks), descending=True, stable=True).indices[:k].tolist())
    return found


def recall(answers: Sequence[tuple[Tensor, Tensor]], best: Sequence[Sequence[int]]) -> float:
    """Return the share of the best rows that were found."""
    return float(np.mean([len(set(a[1][0].tolist()) & set(b)) / len(b) for a, b in zip(answers, best, strict=False)]))


def measure(count: int, options: argparse.Namespace, work: Path) -> dict[str, Any]:
    """Measure all ways over ``count`` responses."""
    texts = Texts(options.seed)
    poly, text, folder = fitted(options, work)
    index, sources = index_over(count, texts, folder, work, options.seed)
    talks = texts.examples[: options.contexts]
    bi = bi_encoder_of(poly, folder)
    codes, pooled = (encoded(one.encode_contexts, text, talks) for one in (poly, bi))
    found = timed(searches(index, codes, pooled, options.k), len(talks), options.proofs)
    told = index.codes.told()
    best = float64_best(index, codes[: options.proofs], options.k)
    whole = timed(responders(index, poly, bi, text, talks, options.k), len(talks), options.proofs)
    rows = [_figures(name, "search", *found[name], best) for name in found]
    rows += [_figures(name, "Responder", *whole[name], best) for name in whole]
    flat = {row["of"]: row["p50_ms"] for row in rows if row["way"].startswith("bi")}
    return {
        "responses": count, "sources": sources, "contexts": len(talks), "k": options.k, "codes": codes.shape[1],
        "compared_with_float64": len(best), "threads": torch.get_num_threads(), "searched": told,
        "attention": attention(index, codes), "about": texts.about,
        "ways": [{**row, "of_bi_encoder": round(row["p50_ms"] / flat[row["of"]], 2)} for row in rows],
    }  # fmt: skip


def attention(index: ResponseIndex, codes: Tensor) -> dict[str, float]:
    """Return how the best responses attend over the codes: medians of the largest weight and of the codes in use."""
    largest, used = [], []
    for own in codes:
        rows = index.codes.search(own[None], 1)[1][0].numpy()
        products = own @ torch.from_numpy(np.asarray(index.embeddings)[rows]).T
        weights = torch.softmax(products, dim=0)
        largest.append(float(weights.max()))
        used.append(float(torch.exp(-(weights * weights.log()).sum())))
    return {"largest_weight": round(float(np.median(largest)), 4), "codes_in_use": round(float(np.median(used)), 2)}


def _figures(name: str, of: str, times: list[float], answers: list[tuple[Tensor, Tensor]], best: Any) -> dict[str, Any]:
    p50, p95, p99 = np.percentile(times, [50, 95, 99]).round(3).tolist()
    figures: dict[str, Any] = {"way": name, "of": of, "p50_ms": p50, "p95_ms": p95, "p99_ms": p99}
    if name.startswith("poly"):
        figures["recall"] = round(recall(answers, best), 4)
        figures["equal"] = sum(a[1][0].tolist() == b for a, b in zip(answers, best, strict=False))
    return figures


def rows_of(size: dict[str, Any]) -> list[dict[str, str]]:
    """Return the table's rows of one size."""
    return [
        {
            "responses": f"{size['responses']:,}",
            "way": way["way"],
            "timed": way["of"],
            "p50 ms": f"{way['p50_ms']:.1f}",
            "p95 ms": f"{way['p95_ms']:.1f}",
            "of the bi-encoder's p50": f"{way['of_bi_encoder']:.2f}",
            f"recall@{size['k']}": f"{way['recall']:.4f}" if "recall" in way else "-",
            "equal to float64": f"{way['equal']} of {size['compared_with_float64']}" if "equal" in way else "-",
        }
        for way in size["ways"]
    ]


def told(sizes: Sequence[dict[str, Any]]) -> str:
    """Return what was measured, for the page."""
    first = sizes[0]
    shares = "; ".join(_told_of(size) for size in sizes)
    return (
        f"{first['codes']} codes, {first['contexts']} real contexts one after the other on {first['threads']} threads. "
        f"Responses: {first['about']}. {shares}. The best response puts {first['attention']['largest_weight']:.3f} of "
        f"its attention on one code and uses {first['attention']['codes_in_use']:.1f} of them (medians; the second is "
        "the exponential of the entropy). `Responder` is from texts to replies, tokenising and encoding included."
    )


def _told_of(size: dict[str, Any]) -> str:
    searched = size["searched"]
    rescored = searched["rescored"] / (searched["proved"] + searched["unproved"])
    return (
        f"Of {size['responses']:,} responses {size['sources']['perturbed']:,} are perturbed; the first round proved "
        f"{100 * searched['first_round_share']:.1f}% of the answers, {rescored:.0f} responses were rescored a context, "
        f"the screen was {searched['screen']['name']}"
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure all sizes; write the page and the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--responses", type=int, nargs="+", default=[100_000])
    parser.add_argument("--contexts", type=int, default=200, help="real contexts that are timed")
    parser.add_argument(
        "--proofs", type=int, default=50, help="how many are compared with float64, and timed by slow ways"
    )
    parser.add_argument("--k", type=int, default=10)
    parser.add_argument("--student", help="folder of a poly-encoder's index, instead of fitting one")
    parser.add_argument("--work", default=".bench/poly", help="folder of all that is kept")
    parser.add_argument("--page", default="poly_search", help="name of the page in docs/results")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    work = Path(options.work)
    sizes = [measure(count, options, work) for count in options.responses]
    line = "python benchmarks/poly_search.py " + " ".join(sys.argv[1:] if arguments is None else arguments)
    rows = [row for size in sizes for row in rows_of(size)]
    print(write_report(options.page, "Search by a poly-encoder's codes", line.strip(), told(sizes), rows, sizes))


if __name__ == "__main__":
    main()
