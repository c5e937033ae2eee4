from g2r_lightning.dialogue.readers import DailyDialogReader, Skip


def test_official_form(fixtures):
    first, second = DailyDialogReader(str(fixtures / "dailydialog.txt"))
    assert first.turns == ("Is the tea ready ?", "Nearly . Do you take milk ?", "No , thanks .")
    assert [e.id for e in first.examples()] == ["dailydialog:dailydialog-1:1", "dailydialog:dailydialog-1:2"]
    assert (second.id, second.turns[1]) == ("dailydialog-3", "It ' s always late on Mondays !")


def test_faulty_lines(write):
    path = write("a.txt", "a __eou__ b\na b\nc __eou__\nd __eou__ __eou__ e __eou__\nf__eou__g__eou__\n")
    reader = DailyDialogReader(str(path))
    assert [d.turns for d in reader] == [("a", "b"), ("f", "g")]
    assert reader.skipped == [
        Skip(2, "no __eou__: not a line of DailyDialog"),
        Skip(3, "dialogue a-3: 1 turn(s); a response needs a context"),
        Skip(4, "dialogue a-4: turn 1 is empty"),
    ]
