"""Runs side by side: what differs between them, what came of it, and whether it can be compared."""
