"""Top-k on every backend that runs here: the traps of its ancestors, and how its kernels are chosen and launched."""

from __future__ import annotations

from importlib.util import find_spec

import pytest
import torch

from dsa_config import settings
from dsa_exec import topk
from dsa_exec.core.errors import LaunchError, UnsupportedCall
from dsa_exec.core.hardware import Capabilities
from dsa_exec.dispatch.registry import backend as backend_named
from dsa_exec.layouts.views import SlotMap
from dsa_exec.ops.topk import Call
from dsa_exec.ops.topk.launch import MOST_BLOCKS, MOST_COLUMNS, cluster_launch, portable_launch, takes_clusters

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
IS_HOPPER = torch.cuda.is_available() and torch.cuda.get_device_capability() == (9, 0)
needs_triton = pytest.mark.skipif(find_spec("triton") is None, reason="needs Triton")
needs_hopper = pytest.mark.skipif(not IS_HOPPER, reason="needs a Hopper GPU")
BACKENDS = ["torch", pytest.param("triton", marks=needs_triton), pytest.param("gluon", marks=needs_hopper)]
KERNELS = [pytest.param("triton", marks=needs_triton), pytest.param("gluon", marks=needs_hopper)]
HOPPER = Capabilities("cuda", "sm90", "2.13", "3.6.0")


def ints(*numbers: int) -> torch.Tensor:
    return torch.tensor(numbers, dtype=torch.int32, device=DEVICE)


def normal(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1)).to(DEVICE)


def by(backend: str, *args, launch: str = "", **more) -> torch.Tensor:
    with settings.override(topk_backend=backend, kernel_launch=launch):
        return topk(*args, **more)


def meta_call(rows: int, width: int, k: int = 2048) -> Call:
    """A call whose tensors take no memory."""
    logits = torch.empty(rows, width, device="meta")
    return Call(logits, torch.empty(rows, dtype=torch.int32, device="meta"), k, None, None)


@pytest.mark.parametrize("backend", BACKENDS)
def test_t36_lengths_may_be_negative_or_beyond_the_table(backend):
    """T36: a row of negative length has no positions; one of too great a length ends where the row does."""
    logits = normal(4, 100)
    wanted = by("torch", logits, ints(0, 100, 0, 100), 8)
    assert torch.equal(by(backend, logits, ints(-1, 101, -(2**31), 2**31 - 1), 8), wanted)
    assert (wanted[0] == -1).all()
    assert (wanted[1] >= 0).all()


@pytest.mark.parametrize("backend", BACKENDS)
def test_t36_slots_of_rows_without_a_position_are_written(backend):
    """T36: every cell of the result is defined, also of rows that have no length, no page or no request."""
    slot_map = SlotMap(ints(5, 3).reshape(1, 2), 4, ints(0, 0, 0))
    slots = by(backend, normal(3, 16), ints(-3, 16, 2), 16, slot_map=slot_map)
    assert slots.tolist() == [[-1] * 16, [20, 21, 22, 23, 12, 13, 14, 15] + [-1] * 8, [20, 21] + [-1] * 14]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("ties", [16385, 20000])
def test_t36_any_number_of_ties_is_settled_by_position(backend, ties):
    """T36: more equal scores than any buffer holds: those above them are all taken, and of them the first."""
    logits = torch.zeros(1, 20480, device=DEVICE)
    logits[0, ties:] = -1.0
    logits[0, [7, 4099, 20479]] = 1.0
    picked = by(backend, logits, ints(20480), 2048)
    assert picked.tolist() == [[*range(2046), 4099, 20479]]


@pytest.mark.parametrize("backend", BACKENDS)
def test_t36_twenty_runs_are_the_same(backend):
    """T36: who arrives first decides nothing: 20 runs over many ties are equal to the bit."""
    logits = (normal(3, 5000) * 2).round()
    first = by(backend, logits, ints(5000, 4000, 2049), 2048)
    for _ in range(20):
        assert torch.equal(by(backend, logits, ints(5000, 4000, 2049), 2048), first)


@pytest.mark.parametrize("backend", KERNELS)
@pytest.mark.parametrize("scale", [1e-42, 1e-6, 1.0, 1e30])
def test_every_bit_of_a_score_counts(backend, scale):
    """Scores that differ in their last bits are told apart, subnormal ones too."""
    steps = torch.randperm(3000, generator=torch.Generator().manual_seed(2)).to(DEVICE, torch.int32)
    first_bits = torch.tensor(scale, device=DEVICE).view(torch.int32)
    for sign in (1.0, -1.0):
        logits = (first_bits + steps).view(torch.float32)[None] * sign
        assert torch.equal(by(backend, logits, ints(3000), 100), by("torch", logits, ints(3000), 100))


@pytest.mark.parametrize("backend", KERNELS)
def test_a_width_that_no_vector_divides(backend):
    """Rows and windows that begin and end anywhere in a vector of four give what the specification gives."""
    logits = normal(8, 203)[:, 1:200]
    starts, lengths = ints(0, 1, 2, 3, 4, 5, 199, 150), ints(199, 198, 150, 196, 101, 200, 3, 49)
    wanted = by("torch", logits, lengths, 40, row_starts=starts)
    assert torch.equal(by(backend, logits, lengths, 40, row_starts=starts), wanted)


@needs_triton
@pytest.mark.parametrize(
    "launch", ["block=256", "block=1024", "digit_bits=4", "digit_bits=8", "digit_bits=11", "warps=2"]
)
def test_launch_parameters_do_not_change_the_result(launch):
    """The setting `kernel_launch` changes how the portable kernel works, not what it gives."""
    logits, lengths = (normal(2, 1500) * 3).round(), ints(1500, 700)
    wanted = by("torch", logits, lengths, 300)
    assert torch.equal(by("triton", logits, lengths, 300, launch=f"topk.triton.{launch}"), wanted)


@needs_hopper
@pytest.mark.parametrize(
    "launch", ["blocks=2 topk.gluon.columns=8192", "blocks=16", "warps=8", "registers=48", "overlap=0"]
)
def test_launch_parameters_do_not_change_the_result_on_hopper(launch):
    """The setting `kernel_launch` changes how the kernel of clusters works, not what it gives."""
    logits, lengths = (normal(2, 9000) * 3).round(), ints(9000, 7000)
    wanted = by("torch", logits, lengths, 300)
    assert torch.equal(by("gluon", logits, lengths, 300, launch=f"topk.gluon.{launch}"), wanted)


@needs_triton
def test_a_launch_parameter_that_is_none_is_named():
    """A field that the kernel does not have is an error that lists those it has."""
    with pytest.raises(LaunchError, match="block, warps, digit_bits"):
        by("triton", normal(1, 8), ints(8), 2, launch="topk.triton.blocks=8")


@pytest.mark.parametrize("rows", [1, 8, 9, 32, 64, 65, 99, 100, 4096])
@pytest.mark.parametrize("width", [1, 4095, 4097, 8192, 20000, 65536, 131072, 200000, 262144])
def test_a_cluster_holds_its_row(rows, width):
    """Blocks and columns are powers of two within the hardware's limits, and all blocks together hold a row."""
    launch = cluster_launch(rows, width)
    assert launch.blocks * launch.columns >= width
    assert launch.blocks in (1, 2, 4, 8, 16)
    assert launch.columns.bit_count() == 1
    assert 128 * launch.warps <= launch.columns <= MOST_COLUMNS
    assert launch.warps in (8, 16, 32)


def test_rows_beyond_a_cluster_go_to_the_other_kernel():
    """Few rows and short rows take clusters; many wide rows, and rows too wide for a cluster, do not."""
    assert takes_clusters(8, 65536)
    assert takes_clusters(4096, 4096)
    assert not takes_clusters(4096, 65536)
    assert not takes_clusters(1, MOST_BLOCKS * MOST_COLUMNS + 1)


@pytest.mark.parametrize("rows", [1, 4096])
@pytest.mark.parametrize("width", [1, 255, 256, 257, 4096, 10**6])
def test_a_step_of_the_portable_kernel_is_no_longer_than_needed(rows, width):
    """The block is a power of two from 256, and each warp has columns to look at."""
    launch = portable_launch(rows, width)
    assert launch.block.bit_count() == 1
    assert launch.block <= max(256, 2 * width - 1)
    assert launch.block >= 32 * launch.warps


def test_kernels_refuse_in_words():
    """A row whose columns an int32 cannot count, a GPU that is not Hopper, a machine without Triton."""
    bare = Capabilities("cuda", "sm90", "2.13", None)
    assert backend_named("topk", "gluon").refuses(meta_call(2, 64), bare) == "Triton is not installed"
    ampere = Capabilities("cuda", "sm80", "2.13", "3.6.0")
    assert "sm80" in str(backend_named("topk", "gluon").declines(meta_call(2, 64), ampere))
    for name in ("triton", "gluon"):
        assert "2147483647 columns" in str(backend_named("topk", name).refuses(meta_call(1, 2**31 - 1), HOPPER))


def test_a_named_kernel_never_falls_back():
    """Off Hopper the choice of the kernel for Hopper is an error that says so."""
    if IS_HOPPER:
        pytest.skip("not applicable: this is Hopper")
    with pytest.raises(UnsupportedCall, match="topk"):
        by("gluon", normal(1, 8), ints(8), 2)
