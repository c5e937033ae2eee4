"""What `doctor` looks at before anything is run, and what `clean` finds lying about.

- ``finding`` — one line of a check: ok, warning or problem, with the remedy
- ``packages`` — versions against those declared, and releases known to be bad; imports none of them
- ``machine`` — CPU, threads, memory, GPU, disk, places to write
- ``experiment`` — what an experiment names: files, models, store, run folder
- ``needs`` — how much memory and disk its training takes
- ``belongings`` — runs, stores, indexes, caches and leftovers under a folder; who uses them; their removal
"""
