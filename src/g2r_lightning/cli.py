"""One entry point, one YAML for every command.

``python -m g2r_lightning COMMAND -c experiments/x.yaml [--key.of.setting=value ...]``. Files given with repeated ``-c``
compose, the later over the earlier, then the flags; interpolations (``${data.init_args.seed}``) are resolved last, so a
flag reaches every value that names it. Every command accepts the same file and builds only the sections it needs.
"""

from __future__ import annotations

import importlib
import logging
import os
import sys
import threading
import warnings
from collections.abc import Sequence

from g2r_lightning.errors import G2RError
from g2r_lightning.paths import disk_trouble
from g2r_lightning.stopping import STOPPED, StopSignals

COMMANDS = {
    "fit": "train a student (or a teacher, or a learned metric), build its index, log retrieval metrics every epoch",
    "sweep": "fit an experiment at many points and seeds, resumable and shared by processes; tables and plots",
    "validate": "evaluate a checkpoint on the validation sets",
    "test": "evaluate a checkpoint on the test sets",
    "predict": "answer a file of contexts and write the replies to JSONL",
    "chat": "talk with a retriever in the terminal; /why tells where a reply comes from",
    "latency": "time the student's replies beside its teacher's, context by context",
    "encode": "encode a response set of any size from disk to disk, on any number of devices",
    "index": "build the response index of a checkpoint over a response set of any size, tuned on real contexts",
    "quality": "judge replies by a learned metric without references",
    "generate": "let the teacher write replies to every training context (data-level G2R)",
    "score": "let the teacher score every candidate (model-level G2R)",
    "import": "make a candidate store from the authors' release, or from replies that an LLM already wrote",
    "export": "write a student or its index for other programs (--format=...), or a store in the authors' JSONL",
    "serve": "answer over HTTP from a run's index: a page to chat on, and an API as OpenAI's",
}
WITHOUT_EXPERIMENT = {
    "compare": "two or more runs: differences with intervals over dialogues and seeds, and where they differ most",
    "human": "sheets for human evaluation (human export), and what raters answered (human import)",
    "report": "the tables of a paper from run records, each cell with the runs that it comes from",
    "doctor": "look at versions, machine and what an experiment would need (-c), each with its remedy",
    "clean": "list runs, stores, indexes and caches with their sizes, and remove what is named",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command.

    Args:
        argv: command and its flags; those of the process by default.

    Returns:
        Exit status: 0, 2 for what the person at the keyboard can mend, 130 after Ctrl-C, 143 after SIGTERM, or 1 for
        what `doctor` found.
    """
    try:
        return _main(list(sys.argv[1:] if argv is None else argv))
    except KeyboardInterrupt:  # before or behind what StopSignals watches
        return _fail(STOPPED, 130)


def _main(arguments: list[str]) -> int:
    if not arguments or arguments[0] in ("-h", "--help"):
        _say(usage())
        return 0 if arguments else 2
    command, *rest = arguments
    known = {**COMMANDS, **WITHOUT_EXPERIMENT}
    if command not in known:
        from difflib import get_close_matches

        nearest = get_close_matches(command, known, 1)
        hint = f"; did you mean '{nearest[0]}'?" if nearest else ""
        return _fail(f"unknown command '{command}'{hint}\n\n{usage()}")
    _quieten()
    _threads_in_a_line()
    with StopSignals() as signals:
        try:
            status: int = importlib.import_module("g2r_lightning.commands").run(command, rest)
        except G2RError as error:
            return _fail(STOPPED, signals.status) if signals.interrupted else _fail(str(error))
        except KeyboardInterrupt:
            return _fail(STOPPED, signals.status)
        except SystemExit as end:
            if signals.asked or end.code == 1:  # what Lightning 2.6 makes of both signals
                return _fail(STOPPED, signals.status)
            return end.code if isinstance(end.code, int) else 0  # after --help and --print_config
        except Exception as error:
            if signals.interrupted:  # a library made another error of it
                return _fail(STOPPED, signals.status)
            if (told := disk_trouble(error)) is None:
                raise
            return _fail(told)
    return status


def _threads_in_a_line() -> None:
    """Have a library's thread that cannot write say so in a line, without a traceback; TensorBoard has such a thread.

    The command meets the same error at its next write, and ends with it. Not undone when the command ends: such threads
    write their last then.
    """
    before = threading.excepthook
    if getattr(before, "__name__", "") == "disk_trouble_in_a_line":
        return

    def disk_trouble_in_a_line(failure: threading.ExceptHookArgs) -> None:
        """Log what a full or forbidden disk did to a thread; leave anything else to the hook before."""
        told = disk_trouble(failure.exc_value) if isinstance(failure.exc_value, Exception) else None
        if told is None:
            before(failure)
        else:
            logging.getLogger(__name__).warning("in another thread: %s", told)

    threading.excepthook = disk_trouble_in_a_line


def usage() -> str:
    """Return the list of commands."""
    known = {**COMMANDS, **WITHOUT_EXPERIMENT}
    width = max(map(len, known))
    lines = [f"  {name:<{width}}  {what}" for name, what in known.items()]
    return "\n".join([
        "usage: python -m g2r_lightning COMMAND -c EXPERIMENT.yaml [-c MORE.yaml] [--key=value ...]",
        "", "commands:", *lines, "",
        "COMMAND --help shows its settings; --print_config prints the composed configuration.",
    ])  # fmt: skip


def _quieten() -> None:
    """Silence messages that are about libraries among themselves; each names where it is discussed."""
    log = logging.getLogger("g2r_lightning")
    log.setLevel(logging.INFO)
    if not log.handlers:
        log.addHandler(logging.StreamHandler())
    # Lightning advertises another product once a run
    logging.getLogger("lightning.pytorch.utilities.rank_zero").addFilter(
        lambda record: "Tip:" not in record.getMessage()
    )
    # Lightning 2.6 calls jsonargparse's old names; gone with jsonargparse 5, which setup.cfg excludes.
    os.environ.setdefault("JSONARGPARSE_DEPRECATION_WARNINGS", "off")
    warnings.filterwarnings("ignore", message="LightningCLI's args parameter")
    # Lightning 2.6 uses a name of torch's pytrees that torch 2.13 deprecates
    warnings.filterwarnings("ignore", message=".*isinstance.treespec, LeafSpec.*")
    # Whole batches are made in the dataset (batch_size=None); more loader workers are the user's choice.
    warnings.filterwarnings("ignore", message=".*does not have many workers.*")
    # bf16-mixed is chosen where the CPU is good at it; the summary tells the megabytes of the float32 weights
    warnings.filterwarnings("ignore", message="Precision .* is not supported by the model summary")
    warnings.filterwarnings("ignore", message=".*Checkpoint directory .* exists and is not empty")


def _say(text: str) -> None:
    if sys.stdout is not None:  # closed by whoever started this
        sys.stdout.write(text + "\n")


def _fail(text: str, status: int = 2) -> int:
    if sys.stderr is not None:
        sys.stderr.write(f"error: {text}\n")
    return status
