"""Searching for better settings: what may vary, Optuna's study of it, trials side by side.

A trial is a run of `lm train` in a process of its own, followed by what it writes into its run
directory; training knows nothing of it.
"""
