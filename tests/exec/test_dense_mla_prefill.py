"""Attention over windows: parts that do not show, what is not finite, gradients, addresses, launches of any size."""

from __future__ import annotations

import math

import pytest
import torch
from conformance_suite import DEVICE

from dsa_config import settings
from dsa_exec import dense_mla_prefill, sparse_mla_prefill
from dsa_exec.core import attention
from dsa_exec.core.checks import Arguments
from dsa_exec.core.errors import UnsupportedCall
from dsa_exec.dispatch.registry import backends
from dsa_exec.ops.dense_mla_prefill.launch import portable_launch

HEADS, WIDTH, VALUES, KEYS = 3, 24, 16, 90
WINDOWS = [(0, 5), (0, 90), (7, 7), (60, 90), (9, 3), (2, 71), (89, 90), (33, 64), (0, 33), (31, 65), (1, 2)]
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
every_backend = pytest.mark.parametrize("backend", backends("dense_mla_prefill"))


def arguments(windows=WINDOWS, *, keys: int = KEYS, heads: int = HEADS, dtype=torch.float32, sink: bool = True):
    generator = torch.Generator().manual_seed(0)
    starts, ends = torch.tensor(windows, dtype=torch.int32, device=DEVICE).reshape(-1, 2).T.contiguous()
    return {
        "q": torch.randn(len(windows), heads, WIDTH, generator=generator).to(DEVICE, dtype),
        "kv": torch.randn(keys, WIDTH, generator=generator).to(DEVICE, dtype),
        "starts": starts,
        "ends": ends,
        "sm_scale": 0.2,
        "d_v": VALUES,
        "attn_sink": torch.randn(heads, generator=generator).to(DEVICE) if sink else None,
    }


def attempt(backend: str, given: dict, **options):
    try:
        with settings.override(dense_mla_prefill_backend=backend, **options):
            return dense_mla_prefill(**given)
    except UnsupportedCall as refusal:
        pytest.skip(str(refusal))


def as_sparse(given: dict):
    """The same as selected rows: every row of the window, by the other op's specification."""
    at = torch.arange(given["kv"].shape[0], device=DEVICE).expand(len(given["starts"]), -1)
    seen = (at >= given["starts"][:, None]) & (at < given["ends"][:, None])
    rest = {name: it for name, it in given.items() if name not in ("starts", "ends")}
    with settings.override(sparse_mla_prefill_backend="torch"):
        return sparse_mla_prefill(**rest, indices=at.where(seen, -1).to(torch.int32))


def check_same(got, wanted, tolerance: float = 2e-6) -> None:
    for left, right in zip(got, wanted, strict=True):
        torch.testing.assert_close(left, right, rtol=tolerance, atol=tolerance, equal_nan=True)


@every_backend
def test_it_is_sparse_attention_with_all_selected(backend):
    """Window by window what the sparse op gives for every row of the window."""
    given = arguments()
    check_same(attempt(backend, given), as_sparse(given))


@pytest.mark.parametrize("scratch_bytes", [1, WIDTH * 4, 7 * WIDTH * 4, 40 * WIDTH * 4, HEADS * KEYS * 4 * 2, 2**20])
def test_a_small_scratch_gives_the_same_in_parts(monkeypatch, scratch_bytes):
    """One query or key at a time, or some of both: results and gradients are those of the whole."""
    given = arguments()
    given["q"].requires_grad_()
    given["kv"].requires_grad_()
    wanted = attempt("torch", given)
    gradients = torch.autograd.grad(wanted[0].square().sum(), (given["q"], given["kv"]))
    monkeypatch.setattr(attention, "SCRATCH_BYTES", scratch_bytes)
    got = attempt("torch", given)
    check_same(got, wanted)
    check_same(torch.autograd.grad(got[0].square().sum(), (given["q"], given["kv"])), gradients, tolerance=1e-5)


def test_gradients_are_those_of_sparse_attention():
    """Through scores, values and sink; `auto` passes kernels that give none."""
    given = arguments()
    wanting = [given["q"].requires_grad_(), given["kv"].requires_grad_(), given["attn_sink"].requires_grad_()]
    found = [
        torch.autograd.grad((out.square() * 3).sum(), wanting)
        for out, _ in (dense_mla_prefill(**given), as_sparse(given))
    ]
    check_same(*found, tolerance=1e-5)
    with (
        settings.override(dense_mla_prefill_backend="triton"),
        pytest.raises(UnsupportedCall, match="q requires a gradient"),
    ):
        dense_mla_prefill(**given)


@pytest.mark.parametrize("sink", [-math.inf, 0.0, math.inf])
@every_backend
def test_a_query_that_sees_nothing_is_zero_whatever_the_sink(backend, sink):
    """Zeros and an lse of -inf, also beside queries that see all; its gradients are zeros too."""
    given = arguments()
    given["attn_sink"][:] = sink
    given["q"][2] = torch.nan  # as of padding
    out, lse = attempt(backend, given)
    assert not out[[2, 4]].any()
    assert lse[[2, 4]].isneginf().all()
    assert out.isfinite().all()
    if backend == "torch":
        given["q"].requires_grad_()
        attempt(backend, given)[0].sum().backward()
        assert not given["q"].grad[[2, 4]].nan_to_num(1.0).any()
        assert given["q"].grad.isfinite().all()


@pytest.mark.filterwarnings("ignore:invalid value encountered")  # numpy, which interprets: NaN is what is asked for
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@every_backend
def test_a_request_that_is_not_finite_does_not_reach_its_neighbour(backend, bad):
    """Queries of two requests in one block: those that see the bad token are NaN, all others are as if it were good."""
    windows = [(0, end) for end in range(31, 41)] + [(40, end) for end in range(41, 60)]
    given = arguments(windows, keys=60, heads=2)
    good, good_lse = attempt(backend, given)
    given["kv"][35] = bad
    out, lse = attempt(backend, given)
    sees = (given["starts"] <= 35) & (given["ends"] > 35)
    assert sees.sum() == 5
    assert out[sees].isnan().all()
    check_same((out[~sees], lse[~sees]), (good[~sees], good_lse[~sees]))


def test_a_token_that_is_not_seen_reaches_no_gradient():
    """NaN in the cache beyond every window: gradients are finite, and zero there."""
    given = arguments([(0, 5), (3, 20)], keys=40)
    given["kv"][20:] = torch.nan
    given["q"].requires_grad_()
    given["kv"].requires_grad_()
    dense_mla_prefill(**given)[0].sum().backward()
    assert given["q"].grad.isfinite().all()
    assert given["kv"].grad[:20].isfinite().all()
    assert not given["kv"].grad[20:].any()


@every_backend
def test_unchecked_windows_are_cut_to_the_keys(monkeypatch, backend):
    """Where nobody looks, what is before the first key or after the last counts for nothing."""
    big, small = 2**31 - 1, -(2**31)
    hostile = [(-5, 10**6), (3, big), (small, 4), (big, big), (small, small), (80, 91), (big, small), (90, big)]
    given = arguments(hostile)
    monkeypatch.setattr(Arguments, "values", lambda *_, **__: None)
    cut = arguments([(0, 90), (3, 90), (0, 4), (0, 0), (0, 0), (80, 90), (0, 0), (0, 0)])
    check_same(attempt(backend, given), attempt("torch", cut))


@pytest.mark.parametrize(
    ("queries", "keys", "values"), [(16, 64, 16), (32, 32, 16), (64, 64, 16), (64, 16, 32), (32, 16, 16)]
)
def test_every_launch_gives_the_same(queries, keys, values):
    """Blocks of pairs, tiles of keys and value blocks of any size, over windows that begin and end anywhere in them."""
    given = arguments()
    launch = f"queries={queries} keys={keys} values={values}"
    parts = " ".join(f"dense_mla_prefill.triton.{part}" for part in launch.split())
    check_same(attempt("triton", given, kernel_launch=parts), as_sparse(given))


def test_launches_fit_what_devices_have():
    """Wide blocks of 16-bit channels where matrix units and memory are made for them; few pairs are not padded."""
    for arch, pairs in (("sm90", 4096), ("sm100", 17)):
        assert portable_launch(arch, pairs, 576, 512, 2).queries == 64
    for arch, pairs, element_bytes in (("sm90", 16, 2), ("sm90", 4096, 4), ("sm89", 4096, 2), ("gfx942", 4096, 2)):
        assert portable_launch(arch, pairs, 576, 512, element_bytes).queries == 16
    for launch in (portable_launch("sm90", 64, d, d_v, 2) for d, d_v in ((576, 512), (9, 9), (700, 3), (5000, 5000))):
        assert 16 <= launch.values <= 512
        assert 16 <= launch.rest <= 64


@pytest.mark.gpu
@needs_gpu
@every_backend
def test_t26_keys_beyond_two_to_the_31_elements(backend):
    """T26: key * 576 overflows int32 from key 3,728,270 on."""
    keys = 3_728_400
    kv = torch.zeros(keys, 576, dtype=torch.bfloat16, device=DEVICE)
    kv[-1] = torch.randn(576, generator=torch.Generator().manual_seed(0)).to(DEVICE, torch.bfloat16)
    starts = torch.tensor([keys - 1, keys], dtype=torch.int32, device=DEVICE)
    given = {"q": kv[-1].expand(2, 16, 576).contiguous(), "kv": kv, "starts": starts, "ends": starts * 0 + keys}
    out, lse = attempt(backend, {**given, "sm_scale": 576**-0.5})
    torch.testing.assert_close(out[0], kv[-1, :512].expand(16, 512), rtol=2e-2, atol=2e-2)
    assert not out[1].any()
    assert lse[1].isneginf().all()


@pytest.mark.gpu
@needs_gpu
@every_backend
def test_a_prefill_of_the_usual_size(backend):
    """4096 rows of two requests with 16 heads in bf16, on the wide blocks of sm90, beside the specification."""
    windows = [(0, end) for end in range(1, 2049)] + [(2048, end) for end in range(2049, 4097)]
    generator = torch.Generator().manual_seed(0)
    bounds = torch.tensor(windows, dtype=torch.int32, device=DEVICE).T.contiguous()
    kv = torch.randn(4096, 576, generator=generator).to(DEVICE, torch.bfloat16)
    q = torch.randn(4096, 16, 576, generator=generator).to(DEVICE, torch.bfloat16)
    given = {"q": q, "kv": kv, "starts": bounds[0], "ends": bounds[1], "sm_scale": 576**-0.5}
    check_same(attempt(backend, given), attempt("torch", given), tolerance=2e-2)
