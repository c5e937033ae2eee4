"""Studies of finished runs: what is measured beside each other, under the same conditions, in one process."""
