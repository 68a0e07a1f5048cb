"""This package turns YAML into typed, frozen sections: `sections` holds the keys, `reading` files and overrides."""

from medseg.config.reading import (
    CHANGEABLE_AFTER_TRAINING,
    as_plain,
    change_config,
    config_from_plain,
    load_config,
    parse_overrides,
    shipped_configs,
)
from medseg.config.sections import (
    SEEN,
    Config,
    Features,
    Naming,
    Patches,
    Prepare,
    Reconstruct,
    Review,
    Run,
    Section,
    Stego,
    Student,
)

__all__ = [
    "CHANGEABLE_AFTER_TRAINING",
    "SEEN",
    "Config",
    "Features",
    "Naming",
    "Patches",
    "Prepare",
    "Reconstruct",
    "Review",
    "Run",
    "Section",
    "Stego",
    "Student",
    "as_plain",
    "change_config",
    "config_from_plain",
    "load_config",
    "parse_overrides",
    "shipped_configs",
]
