"""Published results: what was claimed, the recipe behind it, and what came out when we ran it."""
