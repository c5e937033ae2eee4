"""A :class:`~g2r_lightning.inference.Responder` behind HTTP (``serve``).

:mod:`settings` says where it listens and what it refuses. A request goes through :mod:`gate` (token, rate, length,
time, log), then through :mod:`direct` or :mod:`app` to :mod:`openai_api`, :mod:`respond_api` or :mod:`page`. The APIs
put an ``Ask`` (:mod:`answering`) into :mod:`batching`, whose one thread answers several at a time.
:mod:`limits` and :mod:`refusals` hold what is too much and how it is said, :mod:`metrics` what Prometheus reads, and
:mod:`process` runs it all until a signal. Nothing is imported here: all but the settings needs the extra ``serve``.
"""
