"""The parts of `scripts/benchmark.py`: rows, the textbook's side, timing, and the report."""
