"""TensorBoard in a browser without a window: what is to be seen there, and pictures of it."""
