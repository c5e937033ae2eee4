"""Whatever stands in a file, a reader gives dialogues, counted skips, or a DataError; never a traceback."""

import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from g2r_lightning.dialogue.readers import (
    BlendedSkillTalkReader,
    ConvAI2Reader,
    DailyDialogReader,
    EmpatheticDialoguesReader,
    G2RReleaseReader,
    JsonlReader,
    ParlAIReader,
    WizardOfWikipediaReader,
    read_contexts,
    read_responses,
)
from g2r_lightning.errors import DataError

FIXTURES = Path(__file__).parent / "fixtures"
READERS = [
    (JsonlReader, "dialogues.jsonl"),
    (EmpatheticDialoguesReader, "empathetic_dialogues.csv"),
    (DailyDialogReader, "dailydialog.txt"),
    (ConvAI2Reader, "convai2.txt"),
    (ParlAIReader, "parlai.txt"),
    (ParlAIReader, "parlai_g2r.txt"),
    (BlendedSkillTalkReader, "blended_skill_talk.json"),
    (WizardOfWikipediaReader, "wizard_of_wikipedia.json"),
    (G2RReleaseReader, "g2r_dialogue.jsonl"),
]
FRAGMENTS = [
    b"\n",
    b"\t",
    b",",
    b"|",
    b":",
    b'"',
    b"{",
    b"}",
    b"[",
    b"]",
    b"\\",
    b"\\ud800",
    b"\xff",
    b"\xf0\x9f",
    b"\x00",
]
FRAGMENTS += [b"null", b"NaN", b"1e999", b"-1", b"1 ", b"__eou__", b"text:", b"episode_done:True", b" ", b"\r"]

quick = settings(
    deadline=None,
    max_examples=40,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@st.composite
def mutated(draw, valid: bytes) -> bytes:
    """A valid file with pieces cut out, doubled or replaced."""
    for _ in range(draw(st.integers(1, 4))):
        begin = draw(st.integers(0, len(valid)))
        end = min(len(valid), begin + draw(st.integers(0, 60)))
        piece = draw(st.sampled_from([b"", valid[begin:end] * 2, *FRAGMENTS]) | st.binary(max_size=4))
        valid = valid[:begin] + piece + valid[end:]
    return valid


@st.composite
def tampered(draw, valid: str) -> str:
    """Valid JSON lines or a JSON array with one value, anywhere, put in place of another."""
    odd = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3) | st.just([]) | st.just({})
    is_array = valid.startswith(("[{", "[\n"))
    records = json.loads(valid) if is_array else [json.loads(line) for line in valid.splitlines() if line]
    holder = draw(st.sampled_from(records))
    while True:
        place = draw(st.sampled_from(list(holder) if isinstance(holder, dict) else list(range(len(holder)))))
        if not holder[place] or not isinstance(holder[place], dict | list) or draw(st.booleans()):
            break
        holder = holder[place]
    holder[place] = draw(odd)
    return json.dumps(records) if is_array else "\n".join(map(json.dumps, records))


def check(reader_class, content: bytes, path: Path) -> None:
    """Every dialogue that comes out can be used: two turns or more, targets inside, text that is UTF-8."""
    path.write_bytes(content)
    reader = reader_class(str(path))
    num_lines = content.count(b"\n") + 1
    fault = None
    try:
        for dialogue in reader:
            for example in dialogue.examples():
                assert example.context
                assert all(text.strip() for text in (*example.context, example.response))
                texts = (*example.context, example.response, *example.persona, *example.knowledge, *example.choices)
                "".join((*texts, *example.turn_knowledge, *(c.response for c in example.candidates))).encode()
                scores = [s for c in example.candidates for s in (c.given_ll, c.given_mi) if s is not None]
                assert all(abs(score) < float("inf") for score in scores)
    except DataError as error:
        fault = error.line
    assert fault is None or 1 <= fault <= num_lines
    assert all(1 <= skip.line <= num_lines for skip in reader.skipped)
    assert all(skip.reason for skip in reader.skipped)


@pytest.mark.parametrize(("reader_class", "name"), READERS)
@quick
@given(data=st.data())
def test_mutated_files(reader_class, name, data, tmp_path):
    check(reader_class, data.draw(mutated((FIXTURES / name).read_bytes())), tmp_path / name)


@pytest.mark.parametrize(("reader_class", "name"), [case for case in READERS if "json" in case[1]])
@quick
@given(data=st.data())
def test_tampered_values(reader_class, name, data, tmp_path):
    check(reader_class, data.draw(tampered((FIXTURES / name).read_text())).encode(), tmp_path / name)


lines = st.lists(
    st.sampled_from(FRAGMENTS) | st.text(max_size=8).map(lambda t: t.encode("utf-8", "surrogatepass")), max_size=30
)


@pytest.mark.parametrize("reader_class", dict.fromkeys(reader for reader, _ in READERS))
@quick
@given(pieces=lines)
def test_random_lines(reader_class, pieces, tmp_path):
    check(reader_class, b"".join(pieces), tmp_path / "a.txt")


@pytest.mark.parametrize("name", ["contexts.json", "responses.txt"])
@quick
@given(data=st.data())
def test_contexts_and_responses(name, data, tmp_path):
    path = tmp_path / name
    path.write_bytes(data.draw(mutated((FIXTURES / name).read_bytes())))
    try:
        found = list(read_contexts(path) if name == "contexts.json" else read_responses(path))
    except DataError:
        return
    assert found
    assert all(found)
