"""What `dsa run --nproc` starts: `python -m dsa_exec.cli.run.rank OPTIONS`, the options of one rank as JSON."""

from __future__ import annotations

import json
import sys
import traceback
from pathlib import Path
from typing import Any

from dsa_config import SettingError
from dsa_exec.cli.model_option import Dtype
from dsa_exec.cli.run.asked import RANK_TIMEOUT_S, Asked
from dsa_exec.core.errors import DsaError

INTERRUPTED = 130


def main() -> None:
    """Run, and leave the reason of a failure to the process that has started this one."""
    given = json.loads(sys.argv[1])
    model, dtype = given.pop("model"), given.pop("dtype")
    try:
        asked = Asked(**given, model=None if model is None else Path(model), dtype=Dtype(dtype))
        from dsa_exec.cli.run.running import run_as_asked

        sys.exit(INTERRUPTED if run_as_asked(asked) else 0)
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    except Exception as error:
        sys.exit(_told(error, given["rank_timeout_s"] or RANK_TIMEOUT_S))


def _told(error: Exception, timeout_s: float) -> int:
    """Tell an error to the process that has started this one; and the exit status. A fault of ours is told whole.

    That a rank is lost is a consequence of its end, unless the others have waited for it as long as they may.
    """
    from dsa_exec.runtime.distributed import RankLost
    from dsa_exec.runtime.distributed.launch import LastWords, say_last_words

    said: dict[str, Any] = {"kind": "wrong", "text": str(error)}
    if isinstance(error, RankLost):
        said["kind"] = "lost"
    elif isinstance(error, OSError):
        said = {"kind": "system", "errno": error.errno, "text": error.strerror or str(error), "file": error.filename}
    elif not isinstance(error, (SettingError, DsaError)):
        said = {"kind": "fault", "text": traceback.format_exc()}
    say_last_words(LastWords(said, is_consequence=isinstance(error, RankLost) and error.waited_s < 0.9 * timeout_s))
    return 2 if said["kind"] == "wrong" else 1


if __name__ == "__main__":
    main()
