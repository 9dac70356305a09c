"""All rows of the campaign, by importing the modules that enter them."""

import rows_fuzz  # noqa: F401
import rows_hostile  # noqa: F401
import rows_kill  # noqa: F401
import rows_limits  # noqa: F401
from campaign import ROWS

__all__ = ["ROWS"]
