"""The pytest plugin, used by a test suite that only installs the package."""

from __future__ import annotations

from plugin_runs import plugin

pytest_plugins = ["pytester"]


def test_the_fixture_overrides_for_one_test(pytester):
    """settings_override holds until the test ends, adds up, and takes another live object as first argument."""
    pytester.makepyfile(
        """
        from dsa_config import LiveSettings, live, setting, settings

        class Mine(LiveSettings):
            depth: int = setting(1)

        def test_overridden(settings_override):
            settings_override(fuse_topk=False)
            settings_override(live(Mine), depth=2)
            assert (settings.fuse_topk, live(Mine).depth) == (False, 2)

        def test_back_again():
            assert (settings.fuse_topk, live(Mine).depth) == (True, 1)
        """
    )
    pytester.runpytest_subprocess(*plugin(), "-p", "no:cacheprovider").assert_outcomes(passed=2)
