"""The jobs of ``make bench``, one module each: what is measured, by which ways, at which size."""
