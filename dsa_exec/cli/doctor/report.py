"""What `dsa doctor` reports: one document, printed as tables or JSON. `schemas/doctor.schema.json` is made from it."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from dsa_exec.cli.encodable import Text
from dsa_exec.cli.report import SettingInForce


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Trouble(_Part):
    """Something that is wrong."""

    severity: Literal["error", "warning"] = Field(
        description="error: a call fails, or settings cannot be read as they were meant. warning: something to look at."
    )
    kind: Text = Field(description="Which kind; those of `dsa config check` have the names that they have there.")
    name: Text = Field(description="The variable, setting, op or library that it is about.")
    message: Text = Field(description="What is wrong, in a sentence.")
    origin: Text | None = Field(description="Where it is: a variable, or a line of a file.")
    suggestion: Text | None = Field(description="What to do.")


class Accelerator(_Part):
    """A device that torch can use beside the CPU."""

    device: Text
    name: Text
    arch: Text
    multiprocessors: int = Field(description="Compute units on ROCm; 0 where torch does not say.")
    total_bytes: int


class Machine(_Part):
    """The device that was looked at, and what software it is used with."""

    device: Text
    name: Text
    arch: Text
    is_hip: bool = Field(description="torch's `cuda` is ROCm.")
    multiprocessors: int = Field(description="Compute units on ROCm; 0 where torch does not say.")
    total_bytes: int | None = Field(description="Null where the device does not tell its memory.")
    free_bytes: int | None = Field(description="What the driver (on the CPU, the operating system) would give out.")
    reusable_bytes: int | None = Field(description="What torch's allocator holds and could give out again.")
    accelerators: list[Accelerator] = Field(description="All that torch can use.")
    python: Text
    torch: Text
    torch_built_for: Text = Field(description="The CUDA or ROCm that torch was built for, or the CPU.")
    triton: Text | None
    triton_is_interpreted: bool = Field(description="Triton kernels run under its interpreter, on the CPU.")


class Assumed(_Part):
    """Other hardware that choices were worked out for, with the libraries of this machine."""

    arch: Text
    is_hip: bool
    multiprocessors: int = Field(description="0 where it is not known.")


class VendorLibrary(_Part):
    """A vendor's kernel library."""

    name: Text
    usable: bool
    distribution: Text | None = Field(description="The package that it came in, if it is a known one.")
    version: Text | None
    generation: int | None = Field(description="Of its interface, from 1.")
    file: Text | None = Field(description="Where its module is.")
    reason: Text | None = Field(description="Why it cannot be used.")


class Alternative(_Part):
    """Another backend than the one that would run a call."""

    backend: Text
    verdict: Literal["could run", "refuses", "fails"] = Field(
        description="fails: the backend could not even be asked, which is a defect of it."
    )
    reason: Text | None = Field(description="Why it refuses, or why `auto` passes on it.")
    setting: Text | None = Field(
        description="What would choose it: VARIABLE=text, or field=text where the process has set the field; null "
        "where nothing would."
    )


class UnreadableSetting(_Part):
    """A setting that cannot be read, so that every use of it fails. Elsewhere in the report it has its default."""

    name: Text
    why: Text


class CallSizes(_Part):
    """The sizes of the typical calls; the others are those of DeepSeek-V3.2."""

    heads: list[int] = Field(description="Attention heads on the device.")
    index_heads: int
    next_n: list[int] = Field(description="Rows a request in decode: 1, or more where drafts are verified.")
    batch: int = Field(description="Requests in decode.")
    rows: int = Field(description="Query rows in prefill.")
    context: int = Field(description="Tokens of a request.")


class TypicalCall(_Part):
    """A call as it comes in serving, and what would run it."""

    work: list[Text] = Field(description="The call, in words; several where all of them are decided alike.")
    backend: Text | None = Field(description="Null where the call would fail.")
    why: Text = Field(description="Why this backend; or why the call would fail.")
    others: list[Alternative]


class OpChoice(_Part):
    """An op: its setting, and what would run its typical calls."""

    op: Text
    setting: Text
    variable: Text
    choice: Text | None = Field(description="auto, or a backend's name; null if the setting cannot be read.")
    source: Text | None = Field(description="The layer that it came from; null if it cannot be read.")
    origin: Text = Field(description="Where in that layer, or why it cannot be read. Then `auto` is assumed below.")
    calls: list[TypicalCall]


class StepDecision(_Part):
    """Something that is decided once for all layers of a forward step."""

    what: Text
    choice: Text | None = Field(description="Null where the step would fail.")
    why: Text


class Condition(_Part):
    """One condition of a chain."""

    name: Text
    found: Text
    wanted: Text
    holds: bool


class IndexPages(_Part):
    """The pages that a new index-K cache has, and the chain of conditions for aiter's preshuffled ones on ROCm."""

    page_tokens: int
    order: Literal["plain", "preshuffled"]
    why: Text
    conditions: list[Condition] = Field(description="Keys are preshuffled if all of them hold.")


class EnvironmentDifference(_Part):
    """A variable that Python and libraries written in C see differently. Secrets are masked."""

    name: Text
    setting: Text | None
    in_python: Text | None = Field(description="Null: not set in os.environ.")
    in_c: Text | None = Field(description="Null: not set for getenv.")


class CEnvironment(_Part):
    """The environment of this process as libraries see it that call getenv."""

    looked_at: bool
    why_not: Text | None
    compared: int = Field(description="How many variables were compared.")
    differences: list[EnvironmentDifference]


class DoctorReport(_Part):
    """The report of `dsa doctor`."""

    version: Text = Field(description="Of this project.")
    errors: int
    warnings: int
    troubles: list[Trouble] = Field(description="Errors first.")
    machine: Machine
    assumed: Assumed | None = Field(description="Null where choices are those of the machine itself.")
    libraries: list[VendorLibrary]
    settings: list[SettingInForce] = Field(description="Those that are not at their defaults.")
    unreadable: list[UnreadableSetting]
    sizes: CallSizes
    ops: list[OpChoice]
    steps: list[StepDecision]
    index_pages: IndexPages | None = Field(description="Null where it could not be worked out, as below.")
    c_environment: CEnvironment | None
