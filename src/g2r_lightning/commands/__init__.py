"""What each command does with an experiment. Each builds only the sections it names."""

from __future__ import annotations

from collections.abc import Sequence


def run(command: str, arguments: Sequence[str]) -> None:
    """Run one command of the command line.

    Raises:
        G2RError: whatever the person at the keyboard can mend.
    """
    if command == "fit":
        from g2r_lightning.commands.fit import fit

        fit(arguments)
    elif command in ("validate", "test", "predict"):
        from g2r_lightning.commands.evaluate import evaluate

        evaluate(command, arguments)
    else:
        from g2r_lightning.commands import teacher_passes

        {
            "generate": teacher_passes.generate,
            "score": teacher_passes.score,
            "import": teacher_passes.import_candidates,
            "export": teacher_passes.export_candidates,
        }[command](arguments)
