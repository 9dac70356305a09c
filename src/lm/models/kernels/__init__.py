"""Fast ways over a window and to the loss: the same equations, other arithmetic order."""
