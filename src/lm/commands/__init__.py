"""One file per verb: what happens, in order."""
