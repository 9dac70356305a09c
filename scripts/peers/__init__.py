"""The same faults done to other trainers and to ours, by one measure."""
