"""What goes on inside a recurrent model: gradients over lag, gates, states, matrices, updates."""
