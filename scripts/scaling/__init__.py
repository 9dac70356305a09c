"""What `scaling_model.py` is made of: traffic, machines, a model of a step, and what it missed."""
