"""The Dirichlet that rows of probabilities are drawn from."""

from lm import checks
from lm.errors import ConfigError

# Below, a row is one symbol and nothing else, and a chain may fall apart into several.
SMALLEST = 0.01
LARGEST = 1e6


def check_concentration(name: str, value: float) -> None:
    """α, from nearly deterministic to nearly uniform rows."""
    checks.positive(name, value)
    checks.at_most(name, value, LARGEST)
    if value < SMALLEST:
        raise ConfigError(
            f"{name} must be >= {SMALLEST}, got {value!r}: rows would be deterministic",
            f"Set {name} to 0.1 for a predictable text.",
        )
