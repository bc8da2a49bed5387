"""OpenFeature in and out: a provider's flags as a source of settings, and the settings as a provider.

Needs `pip install 'dsa[flags]'`. Run it from anywhere: python examples/flags/openfeature_both_ways.py
"""

from __future__ import annotations

from openfeature import api
from openfeature.provider.in_memory_provider import InMemoryFlag, InMemoryProvider

from dsa_config import DSASettings, settings
from dsa_config.flags.client import ClientFlags
from dsa_config.flags.provider import SettingsProvider


def main() -> None:
    """Read a flag of somebody else's provider, then our settings through OpenFeature."""
    theirs = InMemoryProvider({"kv_format": InMemoryFlag("plain", {"plain": "model"})})
    api.set_provider_and_wait(theirs, "theirs")
    flags = ClientFlags(api.get_client("theirs"), DSASettings, ["kv_format"])
    found = flags.evaluate("kv_format")
    if found is None or found.value != "model":
        raise SystemExit("the provider says that kv_format is 'model'")
    print(f"in:  kv_format={found.value!r} from {found.origin}")
    flags.close()

    api.set_provider_and_wait(SettingsProvider(settings), "ours")
    with settings.override(fuse_topk=False):
        details = api.get_client("ours").get_boolean_details("fuse_topk", True)
    if details.value is not False:
        raise SystemExit("the override says that fuse_topk is off")
    print(f"out: fuse_topk={details.value} by {details.variant}, {details.flag_metadata['origin']}")
    api.shutdown()


if __name__ == "__main__":
    main()
