"""All rows of the campaign, by importing the modules that enter them."""

import rows_bytes  # noqa: F401
import rows_config  # noqa: F401
import rows_config_fuzz  # noqa: F401
import rows_corruption  # noqa: F401
import rows_disk  # noqa: F401
import rows_fuzz  # noqa: F401
import rows_hostile  # noqa: F401
import rows_kill  # noqa: F401
import rows_limits  # noqa: F401
import rows_line  # noqa: F401
import rows_memory  # noqa: F401
import rows_multirun  # noqa: F401
import rows_numbers  # noqa: F401
import rows_processes  # noqa: F401
import rows_races  # noqa: F401
import rows_resume  # noqa: F401
import rows_shared  # noqa: F401
import rows_signals  # noqa: F401
import rows_signals_shared  # noqa: F401
import rows_text  # noqa: F401
from fault_plan import ROWS

__all__ = ["ROWS"]
