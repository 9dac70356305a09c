"""Models for programs that do not have `lm`: ONNX graphs and torch programs, with all they need."""
