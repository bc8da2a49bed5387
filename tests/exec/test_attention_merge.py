"""Attention over parts of the keys, merged: that over all of them, the same bits everywhere, gradients, bad numbers."""

from __future__ import annotations

from importlib.util import find_spec

import pytest
import torch

from dsa_config import settings
from dsa_exec import attention_merge, sparse_mla_decode
from dsa_exec.caches.samples import random_mla_cache
from dsa_exec.core.errors import DtypeError, ShapeError, StrideError, UnsupportedCall
from dsa_exec.dispatch.contract import picks
from dsa_exec.layouts.mla_kv import MlaLayout
from dsa_exec.ops.attention_merge.launch import PortableLaunch, portable_launch

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
BACKENDS = ["torch", pytest.param("triton", marks=pytest.mark.skipif(find_spec("triton") is None, reason="no Triton"))]
every_backend = pytest.mark.parametrize("backend", BACKENDS)
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
INFINITY, NAN = float("inf"), float("nan")


def normal(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(5)).to(DEVICE, dtype)


def merge(backend: str, *args, **more) -> tuple[torch.Tensor, torch.Tensor]:
    with settings.override(attention_merge_backend=backend):
        return attention_merge(*args, **more)


@every_backend
def test_parts_of_the_keys_make_the_attention_over_all(backend):
    """What `sparse_mla_decode` gives over three parts, one of them empty for a row, with a sink."""
    generator = torch.Generator().manual_seed(1)
    cache = random_mla_cache(generator, MlaLayout(), 3, DEVICE)
    slots = picks(generator, 2, 48, cache.slots).to(DEVICE)
    slots[0, 16:] = -1  # the others of the first row have nothing
    q, sink = normal(2, 3, 576) * 3, normal(3)
    wanted_out, wanted_lse = sparse_mla_decode(q, cache, slots, sm_scale=576**-0.5, attn_sink=sink)
    parts = [sparse_mla_decode(q, cache, part, sm_scale=576**-0.5) for part in slots.split(16, dim=1)]
    outs, lses = (torch.stack(of_parts) for of_parts in zip(*parts, strict=True))
    out, lse = merge(backend, outs, lses, attn_sink=sink)
    accelerated = DEVICE.type != "cpu"
    torch.testing.assert_close(out, wanted_out, atol=1e-3 if accelerated else 5e-6, rtol=0)
    torch.testing.assert_close(lse, wanted_lse, atol=1e-3 if accelerated else 5e-6, rtol=0)


@every_backend
def test_one_part_alone_keeps_its_bits(backend):
    """Whichever it is, beside parts that attended to nothing and hold NaN."""
    outs, lses = torch.full((3, 3, 2, 20), NAN, device=DEVICE), torch.full((3, 3, 2), -INFINITY, device=DEVICE)
    alone, its_lse = normal(3, 2, 20), normal(3, 2) * 30
    for row in range(3):
        outs[row, row], lses[row, row] = alone[row], its_lse[row]
    out, lse = merge(backend, outs, lses)
    assert torch.equal(out, alone)
    assert torch.equal(lse, its_lse)


@every_backend
def test_a_row_has_the_same_bits_whatever_is_beside_it(backend):
    """Alone, with others, in another launch, or with another rank's heads: so ranks that merge the same parts agree."""
    outs, lses, sink = normal(3, 4, 4, 48, dtype=torch.bfloat16), normal(3, 4, 4), normal(4)
    out, lse = merge(backend, outs, lses, attn_sink=sink)
    for rows, heads in ((slice(2, 3), slice(0, 4)), (slice(0, 4), slice(1, 3))):
        few = merge(backend, outs[:, rows, heads], lses[:, rows, heads], attn_sink=sink[heads])
        assert torch.equal(few[0], out[rows, heads])
        assert torch.equal(few[1], lse[rows, heads])
    with settings.override(kernel_launch="attention_merge.triton.parts=1, attention_merge.triton.channels=16"):
        again = merge(backend, outs, lses, attn_sink=sink)
    assert torch.equal(again[0], out)
    assert torch.equal(again[1], lse)


@every_backend
@pytest.mark.parametrize("bad", [NAN, INFINITY])
@pytest.mark.filterwarnings("ignore:invalid value encountered")  # by the interpreter, which says so
def test_a_log_sum_exp_that_is_no_number_makes_the_head_nan(backend, bad):
    """That head of that row alone."""
    lses = torch.zeros(2, 2, 2, device=DEVICE)
    lses[1, 0, 1] = bad
    out, lse = merge(backend, torch.ones(2, 2, 2, 8, device=DEVICE), lses)
    assert out.isnan().all(-1).tolist() == lse.isnan().tolist() == [[False, True], [False, False]]
    assert not out[1].isnan().any()


@every_backend
def test_sinks_that_are_infinite(backend):
    """-inf is none, inf takes everything, and neither is in the log-sum-exp; nothing attended to stays zeros."""
    outs, lses = torch.ones(2, 2, 3, 8, device=DEVICE), torch.zeros(2, 2, 3, device=DEVICE)
    lses[:, 1] = -INFINITY
    out, lse = merge(backend, outs, lses, attn_sink=torch.tensor([-INFINITY, INFINITY, NAN], device=DEVICE))
    assert out[0, :2, 0].tolist() == [1.0, 0.0]
    assert out[0, 2].isnan().all()
    assert not out[1].any()
    torch.testing.assert_close(lse[0], torch.full((3,), 2.0, device=DEVICE).log())
    assert lse[1].tolist() == [-INFINITY] * 3


def test_gradients_are_those_of_a_softmax_over_parts():
    """Through outputs, sums and sink; zero where a part was not attended to, whatever it holds. A kernel refuses."""
    outs, lses, sink = normal(3, 3, 2, 8), normal(3, 3, 2), normal(2)
    outs[1, 0], lses[1, 0] = NAN, -INFINITY
    given = [part.requires_grad_() for part in (outs, lses, sink)]
    weighing = normal(3, 2, 8)

    def gradients(out: torch.Tensor, lse: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return torch.autograd.grad((out * weighing).sum() + lse.square().sum(), given)

    shares = torch.softmax(torch.cat([lses, sink.expand(1, 3, 2)]), 0)[:-1]
    attended = outs.where(lses[..., None] > -INFINITY, 0.0)
    wanted = gradients((shares[..., None] * attended).sum(0), torch.logsumexp(lses, 0))
    for gradient, right in zip(gradients(*merge("torch", outs, lses, attn_sink=sink)), wanted, strict=True):
        torch.testing.assert_close(gradient, right, atol=1e-5, rtol=1e-5)
    with pytest.raises(UnsupportedCall, match="outs requires a gradient"):
        merge("triton", outs, lses)


@pytest.mark.parametrize(
    ("error", "words", "changes"),
    [
        (ShapeError, r"outs has shape \[0, 3, 2, 8\]; wanted at least one part", {"outs": normal(0, 3, 2, 8)}),
        (ShapeError, r"outs has shape \[2, 3, 2, 0\]; .* one channel", {"outs": normal(2, 3, 2, 0)}),
        (ShapeError, r"outs has shape \[3, 2, 8\]; wanted \[p, t, h, d\]", {"outs": normal(3, 2, 8)}),
        (StrideError, "outs has strides", {"outs": normal(2, 3, 8, 2).transpose(2, 3)}),
        (DtypeError, "outs is float64", {"outs": normal(2, 3, 2, 8, dtype=torch.float64)}),
        (ShapeError, r"lses has shape \[3, 3, 2\], with 3 at dimension 0", {"lses": normal(3, 3, 2)}),
        (DtypeError, "lses is bfloat16; wanted float32", {"lses": normal(2, 3, 2, dtype=torch.bfloat16)}),
        (ShapeError, r"attn_sink has shape \[3\]", {"attn_sink": normal(3)}),
    ],
)
def test_the_error_names_argument_value_and_want(error, words, changes):
    """What it is not made for is refused before anything is computed."""
    with pytest.raises(error, match=f"^attention_merge: {words}"):
        attention_merge(**{"outs": normal(2, 3, 2, 8), "lses": normal(2, 3, 2), **changes})


@pytest.mark.parametrize(
    ("sizes", "launch"),
    [
        ((8, 1, 128, 512), PortableLaunch(heads=1, channels=512, parts=8, warps=1)),
        ((2, 128, 16, 512), PortableLaunch(heads=1, channels=512, parts=2, warps=1)),
        ((3, 128, 128, 512), PortableLaunch(heads=4, channels=512, parts=4, warps=1)),
        ((64, 4096, 128, 576), PortableLaunch(heads=8, channels=512, parts=8, warps=1)),
        ((1, 4096, 1, 20), PortableLaunch(heads=1, channels=32, parts=1, warps=1)),
    ],
)
def test_a_program_has_more_heads_where_there_are_more_than_fill_the_device(sizes, launch):
    """Of one row; and never more than it has."""
    assert portable_launch(*sizes, multiprocessors=132) == launch


@needs_gpu
@pytest.mark.gpu
def test_a_part_beyond_two_gibielements():
    """Offsets of 64 bits: parts that are more than 2^30 elements apart, the last of them from 2^31 on."""
    rows = 2**13 + 1
    outs = torch.empty(3, rows, 128, 1024, dtype=torch.bfloat16, device=DEVICE)
    lses = torch.full((3, rows, 128), -INFINITY, device=DEVICE)
    last = outs[2, -1].normal_()
    lses[2, -1] = 1.0
    out, lse = merge("triton", outs, lses)
    assert torch.equal(out[-1], last)
    assert not out[:-1].any()
    assert bool((lse[-1] == 1).all())
