"""What a command is told: root schemas, components by name, composition, parsing, saved configs.

The lowest layer that knows Hydra and OmegaConf. A command line becomes a typed object in two
steps, `compose` (YAML and overrides to a `DictConfig`) and `parse` (to the dataclasses, whose
range checks run); everything that can be wrong with it is a `ConfigError` by then, and nothing
has been written.
"""

from lm.config.composition import (
    VERSION_BASE,
    Composed,
    compose,
    compose_jobs,
    config_dir,
    explained,
    local_search_path,
    unresolved,
)
from lm.config.experiment import experiment
from lm.config.fields import PATH_FIELDS, TEXT_FIELDS, path_lists
from lm.config.invocation import Invocation, invocation, invoking, job_directory
from lm.config.overrides import (
    command_line,
    free_text,
    is_override,
    key_of,
    path_items,
    path_list,
    prepare,
    swept_keys,
)
from lm.config.parsing import narrowed, parse
from lm.config.recipe import recipe_changes, same_run
from lm.config.registry import load_plugins, register, schema_named
from lm.config.resume import resume_config
from lm.config.roots import (
    ROOTS,
    CompareConfig,
    EvaluateConfig,
    ExportConfig,
    GenerateConfig,
    ImportConfig,
    InspectConfig,
    Interruption,
    PrepareConfig,
    ReproduceConfig,
    ScoreConfig,
    SweepConfig,
    TrainConfig,
    VerifyResumeConfig,
)
from lm.config.saved import (
    chosen_schemas,
    dump,
    flat_config,
    load_config,
    parse_saved,
    portable_config,
    saved_config,
)
from lm.config.search import searched, takes_whole_numbers, value_at

__all__ = [
    "PATH_FIELDS",
    "ROOTS",
    "TEXT_FIELDS",
    "VERSION_BASE",
    "CompareConfig",
    "Composed",
    "EvaluateConfig",
    "ExportConfig",
    "GenerateConfig",
    "ImportConfig",
    "InspectConfig",
    "Interruption",
    "Invocation",
    "PrepareConfig",
    "ReproduceConfig",
    "ScoreConfig",
    "SweepConfig",
    "TrainConfig",
    "VerifyResumeConfig",
    "chosen_schemas",
    "command_line",
    "compose",
    "compose_jobs",
    "config_dir",
    "dump",
    "experiment",
    "explained",
    "flat_config",
    "free_text",
    "invocation",
    "invoking",
    "is_override",
    "job_directory",
    "key_of",
    "load_config",
    "load_plugins",
    "local_search_path",
    "narrowed",
    "parse",
    "parse_saved",
    "path_items",
    "path_list",
    "path_lists",
    "portable_config",
    "prepare",
    "recipe_changes",
    "register",
    "resume_config",
    "same_run",
    "saved_config",
    "schema_named",
    "searched",
    "swept_keys",
    "takes_whole_numbers",
    "unresolved",
    "value_at",
]
