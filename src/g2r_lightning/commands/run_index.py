"""Which index a command answers from, and which run it belongs to."""

from __future__ import annotations

from pathlib import Path

from g2r_lightning.configuration import ExperimentCLI
from g2r_lightning.errors import ConfigError
from g2r_lightning.paths import resolve_path
from g2r_lightning.runs import CONFIG


def index_folder(cli: ExperimentCLI, named: str | None) -> Path:
    """Return the index to answer from: the one that is named, else that of the experiment's run.

    Args:
        cli: the command's configuration.
        named: its setting ``index``.

    Raises:
        ConfigError: there is neither.
    """
    if named is not None:
        return resolve_path(named)
    if cli.config.get("model") is None:
        raise ConfigError(
            f"`{cli.command}` needs an index: --{cli.command}.index=runs/NAME/index, or the run's own configuration: "
            "-c runs/NAME/config.yaml"
        )
    return cli.run_settings.folder / "index"


def run_folder(cli: ExperimentCLI, index: Path) -> Path:
    """Return the run that an index lies in; that of the experiment for an index that lies elsewhere."""
    return index.parent if (index.parent / CONFIG).is_file() else cli.run_settings.folder
