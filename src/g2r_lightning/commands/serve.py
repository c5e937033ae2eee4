"""``serve``: a run's index behind HTTP, until a signal."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from threading import Event

from g2r_lightning.commands.second_stage import rerank_of, rules_of
from g2r_lightning.configuration import ExperimentCLI
from g2r_lightning.errors import ConfigError
from g2r_lightning.extras import extra
from g2r_lightning.index.folder import MANIFEST
from g2r_lightning.inference.responder import Responder
from g2r_lightning.inference.server.settings import TOKEN_VARIABLE, ServeSettings, is_loopback, read_token
from g2r_lightning.paths import resolve_path

log = logging.getLogger(__name__)


def serve(arguments: Sequence[str]) -> None:
    """Serve ``--serve.index``, or the index of the run.

    Raises:
        G2RError: there is no index, the address cannot be listened on, or a library is missing.
    """
    cli = ExperimentCLI("serve", arguments, ())
    settings = ServeSettings(**vars(cli.config.serve))
    index = resolve_path(settings.index) if settings.index else cli.run_settings.folder / "index"
    if not (index / MANIFEST).is_file():
        raise ConfigError(f"{index}: no response index here; name one with --serve.index=runs/x/index")
    with extra("serve"):
        import fastapi  # noqa: F401
        import prometheus_client  # noqa: F401
        import uvicorn  # noqa: F401
    from g2r_lightning.inference.server.answering import Answerer
    from g2r_lightning.inference.server.app import create_app
    from g2r_lightning.inference.server.process import bound_socket, run_until_stopped

    token, rerank = read_token(settings), rerank_of(cli, settings.k, "serve.k")
    with bound_socket(settings.host, settings.port) as listening:
        responder = Responder.load(index, settings.encoder, rules_of(cli), rerank)
        answerer = Answerer(responder, index, settings.name, settings.log_text)
        log.info("serving '%s' of %s: %d responses", answerer.name, index, answerer.responses)
        if token is None and not is_loopback(settings.host):
            log.warning(
                "warning: --serve.host=%s lets others ask, and there is no token: whoever reaches this port is "
                "answered; set %s, or --serve.token_file",
                settings.host,
                TOKEN_VARIABLE,
            )
        stopping = Event()
        run_until_stopped(create_app(answerer, settings, token, stopping), listening, settings, stopping)
    log.info("stopped")
