"""What was asked for on the command line, as far as options must go together. Needs no torch."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from dsa_exec.cli.device_option import AUTO
from dsa_exec.cli.model_option import Dtype, require_folder
from dsa_exec.cli.run.errors import RunError
from dsa_exec.cli.run.output_file import STANDARD_STREAM, require_writable

if TYPE_CHECKING:
    from dsa_exec.integrations.transformers.sampling import Sampling

AUTO_MAP = "auto"
DEVICES_OF_RANKS = (AUTO, "cpu", "cuda")
RANK_TIMEOUT_S = 300.0
LONGEST_RANK_TIMEOUT_S = 86_400


@dataclass(frozen=True, slots=True)
class Asked:
    """The options of `dsa run`, as they were given; None where one was not.

    Attributes:
        prompt: a file, or - for standard input.
        prompts: a file of JSON lines, or - for standard input.
        output: a file for the results of `prompts`, or - for standard output.
        batch_size: how many of `prompts` at once.
        max_new_tokens: for each prompt that does not say it itself.
        model: a folder.
        device: where to compute.
        device_map: how to spread the model.
        dtype: what to compute in.
        temperature: see `Sampling`, as for the next three.
        sample_top_k: the most tokens to draw among.
        top_p: the probability to draw within.
        seed: of the draws.
        compare: run plain transformers, too.
        report: tell how the text came about.
        as_json: tell it as JSON.
        nproc: how many processes to split the model over, which this one is to start.
        rank_timeout_s: how long these, or those that torchrun has started, wait for each other.
    """

    prompt: str | None = None
    prompts: str | None = None
    output: str | None = None
    batch_size: int | None = None
    max_new_tokens: int = 1
    model: Path | None = None
    device: str = AUTO
    device_map: str | None = None
    dtype: Dtype = Dtype.AUTO
    temperature: float = 0.0
    sample_top_k: int | None = None
    top_p: float | None = None
    seed: int | None = None
    compare: bool | None = None
    report: bool = True
    as_json: bool = False
    nproc: int | None = None
    rank_timeout_s: float | None = None

    def __post_init__(self) -> None:
        self._require_one_source()
        self._require_sampling()
        require_folder(self.model)
        if self.device_map not in (None, AUTO_MAP):
            raise RunError(f"--device-map {self.device_map}: is unknown; wanted {AUTO_MAP}")
        if self.device_map is not None and self.device != AUTO:
            raise RunError(f"--device {self.device} and --device-map say both where the model goes: leave one out")
        self._require_ranks()
        if self.as_json and not self.report:
            raise RunError("--json prints the report, and --no-report leaves it out: leave one out")
        if self.compare and self.prompts is None and not self.report:
            raise RunError("--compare is told by the report, and --no-report leaves that out: leave one out")

    @property
    def compares(self) -> bool:
        """Whether plain transformers is run, too: with one prompt, unless it is not wanted or nobody would be told."""
        if self.compare is not None:
            return self.compare
        return self.prompts is None and self.report

    @property
    def results_file(self) -> Path | None:
        """The file that results of `prompts` go to; None: standard output."""
        return None if self.output in (None, STANDARD_STREAM) else Path(self.output)

    @property
    def reports_on_stderr(self) -> bool:
        """Whether the report goes to standard error, since results are on standard output."""
        return self.prompts is not None and self.results_file is None

    @property
    def needs_stdout(self) -> bool:
        """Whether anything goes to standard output: a text, results or a report."""
        return self.prompts is None or self.results_file is None or self.report

    @property
    def reads_stream(self) -> bool:
        """Whether prompts come from standard input or a pipe, which can be read once, and may take long to come."""
        source = self.prompt if self.prompts is None else self.prompts
        return source is not None and (source == STANDARD_STREAM or Path(source).is_fifo())

    def sampling(self) -> Sampling:
        """How tokens are chosen."""
        from dsa_exec.integrations.transformers.sampling import Sampling

        return Sampling(self.temperature, self.sample_top_k, self.top_p, self.seed or 0)

    def _require_one_source(self) -> None:
        if self.prompts is None:
            for option, given in (("--output", self.output), ("--batch-size", self.batch_size)):
                if given is not None:
                    raise RunError(f"{option} {given} is for several prompts: name a file of them with --prompts")
            return
        if self.prompt is not None:
            raise RunError("--prompt and --prompts say both what to read: leave one out")
        if self.as_json and self.results_file is None:
            raise RunError(
                "--json and the results of --prompts would both go to standard output: name a file for the results "
                "with --output"
            )
        if self.output is not None and self.output != STANDARD_STREAM:
            require_writable(self.output, self.prompts)

    def _require_ranks(self) -> None:
        seconds = self.rank_timeout_s
        if seconds is not None and not 1 <= seconds <= LONGEST_RANK_TIMEOUT_S:
            raise RunError(f"--rank-timeout {seconds}: wanted seconds, from 1 to {LONGEST_RANK_TIMEOUT_S} (a day)")
        if self.nproc in (None, 1):  # one process is no split
            return
        if self.device_map is not None:
            raise RunError(f"--nproc {self.nproc} and --device-map say both how to spread the model: leave one out")
        if self.device not in DEVICES_OF_RANKS:
            raise RunError(
                f"--device {self.device}: with --nproc each process takes a device of its own; "
                f"wanted {', '.join(DEVICES_OF_RANKS[:-1])} or {DEVICES_OF_RANKS[-1]}"
            )

    def _require_sampling(self) -> None:
        if not (math.isfinite(self.temperature) and self.temperature >= 0):
            raise RunError(f"--temperature {self.temperature}: wanted a number of at least 0")
        if self.top_p is not None and not 0 < self.top_p <= 1:
            raise RunError(f"--top-p {self.top_p}: wanted a number above 0 and at most 1")
        if self.temperature > 0:
            return
        for option, given in (("--sample-top-k", self.sample_top_k), ("--top-p", self.top_p), ("--seed", self.seed)):
            if given is not None:
                raise RunError(f"{option} {given} has no effect while nothing is drawn: give a --temperature above 0")
