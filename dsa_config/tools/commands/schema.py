"""`dsa config schema`."""

from __future__ import annotations

from typing import Annotated

import typer

from dsa_config.tools.printing import print_json


def schema(
    flags: Annotated[bool, typer.Option("--flags", help="The schema of a feature-flag file instead.")] = False,
) -> None:
    """Print the JSON Schema of the config file, for editors and validators."""
    from dsa_config import DSASettings
    from dsa_config.flags.schema import flags_schema
    from dsa_config.tools.export_schema import settings_schema

    print_json(flags_schema(DSASettings) if flags else settings_schema(DSASettings))
