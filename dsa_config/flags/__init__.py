"""Feature flags: settings that depend on who asks, from a file in flagd's format or from any OpenFeature client.

Importing this package loads no optional library: `rules`, `client` and `provider` import theirs when they are used.
"""

from dsa_config.flags.context import FlagContext
from dsa_config.flags.errors import BadContext, FlagFileError, FlagsExtraMissing

__all__ = ["BadContext", "FlagContext", "FlagFileError", "FlagsExtraMissing"]
