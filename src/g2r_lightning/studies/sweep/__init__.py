"""A study of one experiment: its points and seeds (`space`, `plan`), its queue and runs, its tables and plots."""
