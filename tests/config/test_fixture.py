"""The pytest plugin, used by a test suite that only installs the package."""

from __future__ import annotations

from importlib.metadata import entry_points

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
    installed = any(point.value == "dsa_config.testing" for point in entry_points(group="pytest11"))
    plugin = () if installed else ("-p", "dsa_config.testing")  # as a user who has not installed the package would
    pytester.runpytest_subprocess(*plugin, "-p", "no:cacheprovider").assert_outcomes(passed=2)
