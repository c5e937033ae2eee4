"""The tables of a paper from run records: what stands in a cell comes from runs, and the cell names them.

1. ``stored_runs`` finds run folders and reads what they left; what is unfinished or damaged is counted and named.
2. ``systems`` reads off a run's saved configuration which system it is (encoder, G2R-D, G2R-M, teacher's score) and its
   factors (alpha, temperature, replies, response set, negatives); never off its name.
3. ``settings`` puts runs together that differ in nothing but factors and seed; others stand apart, and how they differ
   is said.
4. ``measures`` takes a figure from a run, ``cells`` makes runs of one system on several seeds a mean with its interval.
5. ``tables`` knows which rows and columns the paper's tables have, ``writing`` puts them on disk.
"""
