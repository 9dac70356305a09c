"""Text on disk → tokens on disk → stateful streams of windows."""
