"""Distil a generative dialogue model into a fast retrieval model (G2R, Kim et al., Findings of EMNLP 2021).

The way of the data, one direction::

    dialogues -> examples -> candidate store (generate, score) -> student (fit) -> response index -> replies

Packages, in the order in which they may import each other: ``dialogue``, ``store``, ``data``, ``teacher``,
``student``, ``losses``, ``metrics``, ``index``, ``callbacks``, ``inference``, ``cli``.
"""

__version__ = "0.1.0"
