"""A small sample of real dialogues with a teacher's replies and scores: what ``make quickstart`` runs on.

``train.jsonl``, ``validation.jsonl`` and ``test.jsonl`` are dialogues of Blended Skill Talk and Wizard of Wikipedia
(validation splits, CC BY 4.0; see ``ATTRIBUTION.md``); ``store/`` is a candidate store for the training dialogues,
made by this project's ``generate`` and ``score``. :mod:`g2r_lightning.sample.choose` chose the dialogues.
"""
