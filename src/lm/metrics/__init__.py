"""What is measured and where it goes: the arithmetic, the tags, TensorBoard and JSONL."""
