"""The machine beneath: random draws, device, files. Imports nothing of `lm` but checks and errors."""
