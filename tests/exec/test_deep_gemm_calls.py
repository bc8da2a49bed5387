"""What deep_gemm is given, call by call; what is refused, declined and padded; and when `auto` takes it."""

from __future__ import annotations

import dataclasses
import functools

import pytest
import torch
from conformance_suite import CONTRACTS, arguments
from fakes.deep_gemm import machine

from dsa_config import settings
from dsa_exec import mqa_logits, paged_mqa_logits, record_calls
from dsa_exec.caches.index_k_cache import IndexKCache
from dsa_exec.caches.samples import random_index_k_cache
from dsa_exec.core.errors import UnsupportedCall
from dsa_exec.core.hardware import Capabilities, assumed
from dsa_exec.core.numerics import E4M3
from dsa_exec.core.vendors import Missing
from dsa_exec.dispatch.registry import backend, backends
from dsa_exec.dispatch.select import weigh
from dsa_exec.layouts.index_k import IndexKLayout
from dsa_exec.ops import mqa_logits as ragged_op
from dsa_exec.ops import paged_mqa_logits as paged_op
from dsa_exec.ops.paged_mqa_logits.schedule import paged_schedule

TABLE = torch.tensor([[0, 3], [2, 1]], dtype=torch.int32)
NOTHING = {"deep_gemm": Missing("deep_gemm", "deep_gemm is not installed")}


def rows_of(*rows: int) -> torch.Tensor:
    return torch.tensor(rows, dtype=torch.int32)


def ragged(heads: int, rows: int = 5, keys: int = 14) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(heads)
    return {
        "q": torch.randn(rows, heads, 128, generator=generator).to(E4M3),
        "keys": torch.randn(keys, 128, generator=generator).to(E4M3),
        "scales": torch.rand(keys, generator=generator) + 0.1,
        "head_weights": torch.randn(rows, heads, generator=generator),
        "starts": torch.zeros(rows, dtype=torch.int32),
        "ends": torch.arange(keys - rows, keys, dtype=torch.int32) + 1,
    }


def paged(heads: int, n: int) -> dict[str, object]:
    generator = torch.Generator().manual_seed(heads * 10 + n)
    cache = random_index_k_cache(generator, IndexKLayout(), 4, torch.device("cpu"))
    lens = torch.tensor([70, 128], dtype=torch.int32)[:, None] - torch.arange(n - 1, -1, -1, dtype=torch.int32)
    return {
        "q": torch.randn(2, n, heads, 128, generator=generator).to(E4M3),
        "cache": cache,
        "head_weights": torch.randn(2 * n, heads, generator=generator),
        "context_lens": lens,
        "page_table": TABLE,
        "max_context_len": 128,
    }


def by(name: str, op, hw, args):
    """What an op returns with one backend on a machine, and the reason of the decision."""
    with assumed(hw), settings.override(**{f"{op.__name__}_backend": name}), record_calls() as trace:
        logits = op(**args)
    ((decision, _),) = trace.decisions.values()
    return logits, decision.why


def facts(tensor: torch.Tensor) -> tuple[torch.dtype, list[int], list[int]]:
    return tensor.dtype, list(tensor.shape), list(tensor.stride())


@pytest.mark.parametrize("generation", [1, 2])
def test_the_ragged_call(generation):
    """Order, shapes, dtypes and strides of what the library is given: nothing is copied that need not be."""
    hw, library = machine("sm90", generation)
    args = ragged(64)
    by("deep_gemm", mqa_logits, hw, args)
    (call,) = library.calls
    if generation == 1:
        assert (call.name, call.named) == ("fp8_mqa_logits", {"clean_logits": False, "max_seqlen_k": 0})
        q, (keys, scales), weights, starts, ends = call.args
    else:
        assert (call.name, call.named) == ("fp8_fp4_mqa_logits", {"schedule_meta": None})
        (q, q_scales), (keys, scales), weights, starts, ends, max_seqlen_k = call.args
        assert (q_scales, max_seqlen_k) == (None, 14)
    assert facts(q) == (E4M3, [5, 64, 128], [8192, 128, 1])
    assert facts(keys) == (E4M3, [14, 128], [128, 1])
    assert facts(scales) == (torch.float32, [14], [1])
    assert facts(weights) == (torch.float32, [5, 64], [64, 1])
    assert facts(starts) == facts(ends) == (torch.int32, [5], [1])
    assert (keys.data_ptr(), scales.data_ptr()) == (args["keys"].data_ptr(), args["scales"].data_ptr())
    assert (q.data_ptr(), weights.data_ptr()) == (args["q"].data_ptr(), args["head_weights"].data_ptr())


@pytest.mark.parametrize(("arch", "generation"), [("sm90", 1), ("sm90", 2), ("sm100", 1)])
def test_the_paged_call(arch, generation):
    """Order, shapes, dtypes and strides, with native rows and with expanded ones."""
    hw, library = machine(arch, generation)
    args = paged(64, 2)
    schedule = paged_schedule("target_verify", args["context_lens"], TABLE, hw=hw)
    for given, rows in ((schedule, (2, 2)), (None, (4, 1))):
        library.calls.clear()
        by("deep_gemm", paged_mqa_logits, hw, {**args, "schedule": given})
        call = library.calls[-1]
        if generation == 1:
            assert (call.name, call.named) == ("fp8_paged_mqa_logits", {"clean_logits": False, "indices": None})
            q, cache, weights, lens, table, work, width = call.args
        else:
            assert (call.name, call.named) == ("fp8_fp4_paged_mqa_logits", {"indices": None})
            (q, q_scales), cache, weights, lens, table, work, width = call.args
            assert q_scales is None
        b, n = rows
        assert facts(q) == (E4M3, [b, n, 64, 128], [n * 8192, 8192, 128, 1])
        assert facts(cache) == (torch.uint8, [4, 64, 1, 132], [8448, 132, 132, 1])
        assert cache.data_ptr() == args["cache"].data.data_ptr()
        assert facts(weights) == (torch.float32, [4, 64], [64, 1])
        assert facts(lens) == (torch.int32, [b, n], [n, 1])
        assert facts(table) == (torch.int32, [b, 2], [2, 1])
        assert facts(work) == (torch.int32, [133, 2], [2, 1])
        assert width == 128
        if given is None:
            made = library.calls[0]
            assert made.name == "get_paged_mqa_logits_metadata"
            assert made.args[0] is lens
            assert made.args[1:] == (64, 132)


PADDED = {1: 32, 8: 32, 16: 32, 24: 32, 32: None, 48: 64, 64: None}


@pytest.mark.parametrize("n", [1, 2, 3, 4])
@pytest.mark.parametrize(("heads", "taken"), PADDED.items())
def test_every_head_count_with_every_number_of_rows(heads, taken, n):
    """Padded with zeros, native or expanded: the specification's logits, and the padding is in the reason."""
    args = paged(heads, n)
    wanted, _ = by("torch", paged_mqa_logits, machine("sm90")[0], args)
    for hw, library in (machine("sm90"), machine("sm90", 2), machine("sm100")):
        schedule = paged_schedule("target_verify", args["context_lens"], TABLE, hw=hw)
        for given in (None, schedule):
            got, why = by("deep_gemm", paged_mqa_logits, hw, {**args, "schedule": given})
            torch.testing.assert_close(got, wanted, rtol=1e-5, atol=1e-5)
            count = f"{heads} head{'s' if heads > 1 else ''}"
            assert why == "paged_mqa_logits_backend names it" + (f"; {count} padded to {taken}" if taken else "")
        for call in library.calls:
            if call.name != "get_paged_mqa_logits_metadata":
                q = call.args[0] if library.named("fp8_paged_mqa_logits") else call.args[0][0]
                assert q.shape[2] == (taken or heads)
                assert call.args[2].shape == (2 * n, taken or heads)


@pytest.mark.parametrize("heads", [33, 40, 48, 63])
def test_T17_heads_between_32_and_64_are_padded_to_64(heads):
    """T17: the ancestor pads fewer than 32 alone, and 33 to 63 fail in the library."""
    args = ragged(heads)
    wanted, _ = by("torch", mqa_logits, machine("sm90")[0], args)
    for generation in (1, 2):
        hw, library = machine("sm90", generation)
        got, why = by("deep_gemm", mqa_logits, hw, args)
        torch.testing.assert_close(got, wanted, rtol=1e-5, atol=1e-5)
        assert why.endswith(f"{heads} heads padded to 64")
        q = library.calls[0].args[0]
        q = q if generation == 1 else q[0]
        assert q.shape[1] == 64
        assert not q.view(torch.uint8)[:, heads:].any()
        assert not library.calls[0].args[2][:, heads:].any()


@pytest.mark.parametrize(
    ("arch", "heads", "taken"),
    [("sm90", 64, 64), ("sm100", 1, 32), ("sm100", 65, 68), ("sm100", 128, 128), ("sm120", 1, 16), ("sm121", 17, 32)],
)
def test_what_heads_are_padded_to_elsewhere(arch, heads, taken):
    """What every build of the architecture takes, and beyond 64 on sm100 the next multiple of 4."""
    hw, library = machine(arch)
    args = ragged(heads)
    got, _ = by("deep_gemm", mqa_logits, hw, args)
    torch.testing.assert_close(got, by("torch", mqa_logits, hw, args)[0], rtol=1e-5, atol=1e-5)
    assert library.calls[0].args[0].shape[1] == taken


def call_of(op: str, **changes):
    """The checked call of the first case of an op's contract, with changes to its arguments."""
    args = arguments(op, CONTRACTS[op].cases[0], torch.device("cpu"))
    args.update(changes)
    kind = ragged_op.Call if op == "mqa_logits" else paged_op.Call
    return kind(**{"out": None, **args})


def shifted(tensor: torch.Tensor, by_bytes: int) -> torch.Tensor:
    """The same values at an address that is so many bytes past a multiple of 16."""
    room = torch.zeros(tensor.numel() * tensor.element_size() + 64, dtype=torch.uint8)
    begin = -room.data_ptr() % 16 + by_bytes
    moved = room[begin : begin + tensor.numel() * tensor.element_size()].view(tensor.dtype).view(tensor.shape)
    return moved.copy_(tensor)


KEYS = ragged(32)["keys"]
PAGES = random_index_k_cache(torch.Generator(), IndexKLayout(), 4, torch.device("cpu"))
REFUSED = [
    ("mqa_logits", "sm89", {}, "arch=sm89: deep_gemm has kernels for sm90, sm100 and sm120"),
    ("mqa_logits", "cpu", {}, "arch=cpu: deep_gemm has kernels for sm90, sm100 and sm120"),
    ("mqa_logits", "sm90", ragged(65), "heads=65, deep_gemm takes 1 to 64 on sm90 (fewer are padded to one of 32, 64)"),
    ("mqa_logits", "sm100", ragged(129), "heads=129, deep_gemm takes 1 to 128 on sm100 (fewer are padded to one of 32"),
    ("mqa_logits", "sm90", {"q": torch.zeros(5, 32, 128)}, "q is float32, deep_gemm takes float8_e4m3fn"),
    ("mqa_logits", "sm90", {"q": torch.zeros(5, 32, 48).to(E4M3)}, "48 channels, deep_gemm takes 32, 64, 128"),
    ("mqa_logits", "sm90", {"keys": torch.zeros(14, 256).to(E4M3)[:, ::2]}, "keys have rows 256 bytes apart"),
    ("mqa_logits", "sm90", {"keys": shifted(KEYS, 4)}, "keys begin 4 bytes past a multiple of 16"),
    ("mqa_logits", "sm90", {"scales": shifted(torch.ones(14), 8)}, "scales begin 8 bytes past a multiple of 16"),
    ("mqa_logits", "sm90", {"keys": KEYS[:1].expand(2**31 - 9, 128)}, "2147483639 keys, deep_gemm numbers up to"),
    (
        "mqa_logits",
        "sm90",
        {"q": KEYS[:1, None].expand(2**26, 32, 128)},
        "67108864 rows of 32 heads, deep_gemm numbers",
    ),
    ("paged_mqa_logits", "sm86", {}, "arch=sm86: deep_gemm has kernels for sm90, sm100 and sm120"),
    ("paged_mqa_logits", "sm90", {"q": torch.zeros(3, 1, 96, 128)}, "heads=96, deep_gemm takes 1 to 64 on sm90"),
    (
        "paged_mqa_logits",
        "sm90",
        {"cache": IndexKCache(torch.zeros(4, 48 * 132, dtype=torch.uint8), IndexKLayout(page_tokens=48))},
        "the cache has plain pages of 48 in the fp8 format, deep_gemm takes plain pages of 64 in the fp8 format",
    ),
    (
        "paged_mqa_logits",
        "sm90",
        {"cache": IndexKCache(shifted(PAGES.data, 4), IndexKLayout())},
        "the cache begins 4 bytes past a multiple of 16",
    ),
    ("paged_mqa_logits", "sm90", {"max_context_len": 2**31 - 1}, "max_context_len=2147483647, deep_gemm numbers up to"),
    (
        "paged_mqa_logits",
        "sm90",
        {"q": KEYS[:1, None, None].expand(58113, 1, 32, 128)},
        "58113 rows, deep_gemm shares out the work of 58112 at most",
    ),
]


@pytest.mark.parametrize(("op", "arch", "changes", "sentence"), REFUSED)
def test_what_it_cannot_take_is_refused_in_a_sentence(op, arch, changes, sentence):
    """With the value in it; nothing is asked of the library."""
    hw, library = machine(arch)
    refused = backend(op, "deep_gemm").refuses(call_of(op, **changes), hw)
    assert refused is not None
    assert refused.startswith(sentence)
    assert library.calls == []


@pytest.mark.parametrize("op", ["mqa_logits", "paged_mqa_logits"])
def test_what_the_machine_lacks_is_refused_in_a_sentence(op):
    """No library, no Triton for what comes after it, a second generation on sm100, a gradient."""
    refuses, call = backend(op, "deep_gemm").refuses, call_of(op)
    hw, _ = machine("sm90")
    assert refuses(call, hw) is None
    assert refuses(call, dataclasses.replace(hw, vendors=NOTHING)) == "deep_gemm is not installed"
    assert "Triton is not installed (one writes -inf" in refuses(call, dataclasses.replace(hw, triton_version=None))
    assert "Triton 3.4.0 is installed; these" in refuses(call, dataclasses.replace(hw, triton_version="3.4.0"))
    assert refuses(call, dataclasses.replace(hw, is_hip=True)).startswith("arch=sm90")
    assert refuses(call, machine("sm100", 2, version="2.8.2")[0]) == (
        "deep_gemm (sgl-deep-gemm 2.8.2, interface generation 2) takes packed UE8M0 scales of keys and bf16 head "
        "weights on sm100, ours are f32"
    )
    weights = torch.randn(call.head_weights.shape, requires_grad=True)
    assert "head_weights requires a gradient" in refuses(call_of(op, head_weights=weights), hw)


@pytest.mark.parametrize("op", ["mqa_logits", "paged_mqa_logits"])
def test_T26_pages_and_rows_beyond_32_bit_addresses_are_taken(op):
    """T26: the library computes such addresses in 64 bits, so that a large cache or result is no reason to refuse."""
    hw, _ = machine("sm90")
    far = torch.empty(300_000, 8448, dtype=torch.uint8, device="meta")
    change = {"cache": IndexKCache(far, IndexKLayout())} if op == "paged_mqa_logits" else {}
    if op == "mqa_logits":
        change = {"keys": torch.empty(2**20, 128, dtype=E4M3, device="meta"), "scales": None}
    assert backend(op, "deep_gemm").refuses(call_of(op, **change), hw) is None


@pytest.mark.parametrize("op", ["mqa_logits", "paged_mqa_logits"])
def test_when_auto_takes_it(op, monkeypatch):
    """After our kernels for Hopper, which are as fast, and first on sm100; named where builds differ."""
    monkeypatch.setattr("dsa_exec.core.triton_support.is_interpreted", lambda: False)
    ours = [name for name in backends(op) if name in ("gluon", "deep_gemm", "triton")]
    assert ours == ["gluon", "deep_gemm", "triton"]
    call, few = call_of(op), functools.partial(call_of, op)
    weights = torch.ones(call.head_weights.shape[0], 12)
    twelve = few(q=torch.zeros(*call.q.shape[:-2], 12, 128).to(E4M3), head_weights=weights)
    many = few(q=torch.zeros(*call.q.shape[:-2], 96, 128).to(E4M3))

    def chosen(of, arch: str, **changes) -> tuple[str, str]:
        decision = weigh(op, of, dataclasses.replace(machine(arch)[0], **changes))
        return decision.backend.name, decision.why

    assert chosen(call, "sm90")[0] == "gluon"
    name, why = chosen(twelve, "sm90")
    assert name == "deep_gemm"
    assert why.endswith("12 heads padded to 32")
    name, why = chosen(call, "sm100")
    assert name == "deep_gemm"
    assert "refuses" not in why
    name, why = chosen(many, "sm100")
    assert name == "triton"
    assert "deep_gemm declines: heads=96: not every build takes more than 64 on sm100" in why
    name, why = chosen(call, "sm120")
    assert name == "triton"
    assert "deep_gemm declines: not every build has kernels for sm120, and none was run there" in why
    name, why = chosen(call, "sm100", vendors=NOTHING)
    assert name == "triton"
    assert "deep_gemm refuses: deep_gemm is not installed" in why
    name, why = chosen(call, "sm80")
    assert "deep_gemm declines: for sm90 and sm100, this is sm80" in why


def test_a_machine_without_the_library_refuses_a_named_call():
    """Named, it never falls back, and says how to get it."""
    hw = Capabilities("cuda", "sm90", torch.__version__, "3.6", vendors=NOTHING)
    with pytest.raises(UnsupportedCall, match="mqa_logits: deep_gemm: deep_gemm is not installed"):
        by("deep_gemm", mqa_logits, hw, ragged(32))


@pytest.mark.parametrize("generation", [1, 2])
def test_a_compiled_ragged_call_gives_rows_side_by_side(generation):
    """A graph is told so of a new tensor; the library's own has its rows further apart."""
    hw, _ = machine("sm90", generation)
    args = ragged(32)
    eager, _ = by("deep_gemm", mqa_logits, hw, args)
    torch._dynamo.reset()
    compiled = torch.compile(lambda: mqa_logits(**args), fullgraph=True, backend="aot_eager")
    with assumed(hw), settings.override(mqa_logits_backend="deep_gemm"):
        got = compiled()
    assert got.is_contiguous()
    assert eager.is_contiguous() == (generation == 2)
    assert torch.equal(got, eager)
