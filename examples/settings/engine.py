"""An engine's own settings: declared once, from a file with profiles, under old names, and explained."""

import os
import pathlib
import tempfile
import warnings

from pydantic_settings import SettingsConfigDict

from dsa_config import DeprecatedName, LiveSettings, inverted, live, setting


class Engine(LiveSettings):
    """Settings of an engine."""

    model_config = SettingsConfigDict(env_prefix="ENGINE_")
    project_version = "1.0"

    max_batch: int = setting(8, ge=1, le=1024)
    """The most requests that run together."""

    cuda_graphs: bool = setting(
        True, effect="capture", deprecated_names=[inverted("ENGINE_DISABLE_CUDA_GRAPH", since="0.9", remove_in="2.0")]
    )
    """Replay decode steps from CUDA graphs."""


engine = live(Engine)

with tempfile.TemporaryDirectory() as folder:
    file = pathlib.Path(folder, "engine.toml")
    file.write_text("max_batch = 16\n\n[profiles.big]\nmax_batch = 256\n")
    engine.load(file=file, profile="big")
    print(str(engine.explain("max_batch")).replace(folder, "..."))

os.environ["ENGINE_DISABLE_CUDA_GRAPH"] = "1"
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always", DeprecatedName)
    print("cuda_graphs:", engine.cuda_graphs)
print(caught[0].message)
