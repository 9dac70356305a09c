"""The machine beneath: random draws, device, files. Below it only checks and errors."""
