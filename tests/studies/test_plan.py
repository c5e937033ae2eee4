"""A plan's steps: filled in, run in order, passed over when done, stopped and gone on with."""

from __future__ import annotations

import json
import os
import shlex
import signal
import sys
import threading
import time
from pathlib import Path

import pytest

from g2r_lightning.errors import ConfigError, G2RError
from g2r_lightning.studies import plan as plans
from g2r_lightning.studies.plan import STOPPED, main, read_plan, run_plan

STUDY = Path(__file__).parents[2] / "experiments" / "study"
PLAN = """
variables: {root: "%s", flags: "--x={root}/x", seeds: 1 2}
steps:
  - name: first
    run: leave {root}/a {flags}
    done: "{root}/a"
  - name: each
    for: {system: [d, dm], seed: "{seeds}"}
    run: "leave {root}/{system}-{seed} --y=${oc.env:HOME}"
    done: "{root}/{system}-{seed}"
  - name: always
    run: leave {root}/report
"""


@pytest.fixture
def plan(tmp_path) -> Path:
    (tmp_path / "plan.yaml").write_text(PLAN % tmp_path)
    return tmp_path / "plan.yaml"


@pytest.fixture
def commands(monkeypatch) -> list[str]:
    """Let a step's process be a small program of the test's: ``leave FILE``, ``fail``, ``sleep FILE``; log them."""
    ran: list[str] = []
    popen = plans.subprocess.Popen
    program = (
        "import sys, time, pathlib\n"
        "what, *more = sys.argv[1:]\n"
        "if what == 'leave': pathlib.Path(more[0]).write_text('x')\n"
        "if what == 'edit': [pathlib.Path(one).write_text('x: 1') for one in (more[0], more[2])]\n"
        "if what == 'fail': sys.exit(2)\n"
        "if what == 'sleep':\n"
        "    try: time.sleep(60)\n"
        "    except KeyboardInterrupt: pathlib.Path(more[0]).write_text('told')\n"
    )

    def start(command, **options):
        assert command[:3] == [sys.executable, "-m", "g2r_lightning"]
        ran.append(shlex.join(command[3:]))
        return popen([sys.executable, "-c", program, *command[3:]], **options)

    monkeypatch.setattr(plans.subprocess, "Popen", start)
    return ran


def test_steps_run_in_order_once(plan, commands, tmp_path, capsys):
    steps = read_plan(plan).steps
    assert [one.name for one in steps] == ["first", "each d 1", "each d 2", "each dm 1", "each dm 2", "always"]
    assert steps[1].arguments == ("leave", f"{tmp_path}/d-1", "--y=${oc.env:HOME}")
    (tmp_path / "d-2").write_text("there already")
    assert main([str(plan)]) == 0
    assert commands == [
        f"leave {tmp_path}/a --x={tmp_path}/x",
        *(f"leave {tmp_path}/{name} '--y=${{oc.env:HOME}}'" for name in ("d-1", "dm-1", "dm-2")),
        f"leave {tmp_path}/report",
    ]
    assert main([str(plan), "--list"]) == 0
    said = capsys.readouterr().out
    assert said.count("\ndone") + said.startswith("done") == 5
    assert "open  always" in said
    assert main([str(plan), "--list", "--set=seeds=3"]) == 0
    assert [line.split(":")[0] for line in capsys.readouterr().out.splitlines() if "each" in line] == [
        "open  each d 3", "open  each dm 3"
    ]  # fmt: skip
    assert main([str(plan)]) == 0
    assert len(commands) == 6  # the last step again, nothing else
    capsys.readouterr()
    assert main([str(plan), "--json", "--set", "root=elsewhere"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told[0]["arguments"] == ["leave", "elsewhere/a", "--x=elsewhere/x"]


def test_a_run_is_done_when_its_record_says_so(plan, tmp_path):
    step = read_plan(plan).steps[0]
    (tmp_path / "a").mkdir()
    (tmp_path / "a/record.json").write_text('{"status": "interrupted"}')
    assert not step.is_done
    (tmp_path / "a/record.json").write_text('{"status": "finished"}')
    assert step.is_done


def test_minutes_stop_a_step_and_the_same_call_goes_on(tmp_path, commands, capsys):
    path = tmp_path / "plan.yaml"
    path.write_text(f'steps: [{{name: long, run: "sleep {tmp_path}/told", done: "{tmp_path}/done"}}]')
    begun = time.monotonic()
    assert main([str(path), "--minutes=0.02"]) == STOPPED
    assert time.monotonic() - begun < 30
    assert (tmp_path / "told").read_text() == "told"  # asked to stop as by Ctrl-C, not killed
    assert "long: stopped after 0.02 minutes; call again to go on" in capsys.readouterr().out
    (tmp_path / "done").write_text("")
    assert main([str(path), "--minutes=0.02"]) == 0


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_stops_the_step_too(tmp_path, commands, capsys, number, status):
    path = tmp_path / "plan.yaml"
    path.write_text(f'steps: [{{name: long, run: "sleep {tmp_path}/told", done: "{tmp_path}/done"}}]')
    begun = time.monotonic()
    timer = threading.Timer(1.0, os.kill, (os.getpid(), number))
    timer.start()
    assert main([str(path)]) == status
    assert time.monotonic() - begun < 30
    assert (tmp_path / "told").read_text() == "told"
    assert "call again to go on" in capsys.readouterr().err


def test_the_times_of_all_calls_are_added_up(tmp_path, commands, capsys):
    path, times = tmp_path / "plan.yaml", tmp_path / "made/times.csv"
    path.write_text(
        f'variables: {{root: {tmp_path}}}\ntimes: "{{root}}/made/times.csv"\n'
        f'steps: [{{name: long, run: "sleep {tmp_path}/told", done: "{tmp_path}/done"}}, {{name: bad, run: fail}}]'
    )
    assert main([str(path), "--minutes=0.02"]) == STOPPED
    assert main([str(path), "--minutes=0.02"]) == STOPPED
    head, row = times.read_text().splitlines()
    assert head == "step,minutes,calls,settings"
    step, minutes, calls, _ = row.split(",")
    assert (step, calls) == ("long", "2")
    assert 0.04 <= float(minutes) < 1
    (tmp_path / "done").write_text("")
    assert main([str(path)]) == 2
    assert times.read_text().splitlines()[1] == row  # what is passed over takes no time
    assert times.read_text().splitlines()[2].startswith("bad,0.")
    times.write_text("step,minutes,calls\nlong,many,2\n")
    ran = len(commands)
    assert main([str(path)]) == 2
    assert len(commands) == ran  # told before a step, not behind it
    assert "is no table of times" in capsys.readouterr().err
    path.write_text("times: '{a}'\nsteps: []")
    with pytest.raises(ConfigError, match="times: no variable 'a'"):
        read_plan(path)


def test_work_done_with_other_settings_is_not_passed_over(tmp_path, commands, capsys):
    """A finished run of yesterday's experiment would else stand in today's tables."""
    path, experiment = tmp_path / "plan.yaml", tmp_path / "x.yaml"
    experiment.write_text("alpha: 1\nbeta: [2]\n")
    path.write_text(
        f'times: "{tmp_path}/times.csv"\n'
        f'steps: [{{name: one, run: "leave {tmp_path}/one -c {experiment}", done: "{tmp_path}/one"}}]'
    )
    assert main([str(path)]) == 0
    experiment.write_text("# told better\nbeta:\n- 2\nalpha: 1\n")  # the same settings
    assert main([str(path)]) == 0
    assert main([str(path), "--list"]) == 0
    assert "done  one" in capsys.readouterr().out
    experiment.write_text("alpha: 1\nbeta: [3]\n")
    assert main([str(path), "--list"]) == 0
    assert "changed  one" in capsys.readouterr().out
    assert main([str(path)]) == 2
    assert f"one: {tmp_path}/one" in capsys.readouterr().err
    assert len(commands) == 1
    (tmp_path / "one").unlink()
    assert main([str(path)]) == 0  # done again
    assert len(commands) == 2
    experiment.write_text("alpha: 9\n")
    assert main([str(path), "--accept"]) == 0
    assert main([str(path)]) == 0  # it was taken as it is, once for all
    assert len(commands) == 2
    other = tmp_path / "other.yaml"
    other.write_text(
        f'times: "{tmp_path}/times.csv"\n'
        f'steps: [{{name: two, run: "edit {tmp_path}/two -c {experiment}", done: "{tmp_path}/two"}}]'
    )
    assert main([str(other)]) == 0
    assert main([str(other)]) == 2  # its experiment changed while it ran
    assert f"two: {tmp_path}/two" in capsys.readouterr().err
    (tmp_path / "times.csv").write_text("step,minutes,calls\none,1.00,1\n")  # of a time when nobody noted it
    assert main([str(path)]) == 0


def test_what_fails_is_named(tmp_path, commands, capsys):
    path = tmp_path / "plan.yaml"
    path.write_text("steps: [{name: bad, run: fail, done: x}, {name: never, run: leave x, done: x}]")
    with pytest.raises(G2RError, match="step 'bad' failed with status 2"):
        run_plan(read_plan(path))
    path.write_text("steps: [{name: idle, run: nothing, done: x}]")
    with pytest.raises(G2RError, match="'idle' ended well and left no finished x"):
        run_plan(read_plan(path))
    for text, said in {
        "a: [": "cannot be read",
        "steps: 3": "a plan has a list `steps`",
        "steps: [{name: x}]": r"steps\[0\]: needs name and run",
        "steps: [{name: x, run: a, dome: b}]": r"steps\[0\]: needs name and run",
        "steps: [{name: x, run: 'a {b}'}]": "step 'x': no variable 'b'",
        "steps: [{name: x, run: a, for: {y: '{b}'}}]": "step 'x': no variable 'b'",
        "variables: {b: '{b}'}\nsteps: [{name: x, run: a, for: {y: '{b}'}}]": "step 'x': no variable 'without end",
        "variables: {b: ''}\nsteps: [{name: x, run: a, for: {y: '{b}'}}]": "step 'x': for y: no value; give",
        "steps: [{name: x, run: a, for: {y: []}}]": "step 'x': for y: no value",
        "steps: [{name: x, run: a, for: {y: [1, 1]}}]": "step 'x': for y: 1 1; give one or more, each once",
        "steps: [{name: x, run: a, for: {y: 3}}]": r"step 'x': for: \{name: \[value",
        "steps: [{name: x, run: a, for: {y: null}}]": r"step 'x': for: \{name",
        "steps: [{name: x, run: a, for: {y: {a: 1}}}]": r"step 'x': for: \{name",
        "steps: [{name: x, run: a, for: [1, 2]}]": r"step 'x': for: \{name",
        "steps: [{name: x, run: a, for: seeds}]": r"step 'x': for: \{name",
        "variables: [a]\nsteps: []": "variables: NAME: VALUE",
        'steps: [{name: x, run: "fit \'a"}]': "step 'x': run: No closing quotation",
        "steps: [{name: x, run: [fit, a]}]": "step 'x': run: a command of this package as one text",
    }.items():
        path.write_text(text)
        with pytest.raises(ConfigError, match=said):
            read_plan(path)
    path.write_text("variables: {a: 1}\nsteps: []")
    assert main([str(path), "--set", "b=2"]) == 2
    assert "has no variable b; it has a" in capsys.readouterr().err
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.parametrize("name", ["small", "small_factors", "check", "full"])
def test_plans_name_files_that_are_there(name):
    steps = read_plan(STUDY / f"{name}.plan.yaml").steps
    assert len({one.done for one in steps if one.done}) == len([one for one in steps if one.done])
    files = {word for one in steps for word in one.arguments if word.startswith("experiments/")}
    assert files
    assert all((STUDY.parents[1] / file).is_file() for file in files)
