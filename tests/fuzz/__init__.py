"""Bad files on purpose: real and sample lines are broken, structure and all, and read. ``python -m fuzz.campaign``."""
