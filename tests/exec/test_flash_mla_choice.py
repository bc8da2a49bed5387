"""When flash_mla is refused, and when `auto` passes on it: in words, with the value."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
import torch
from fakes.flash_mla import FakeFlashMla

import dsa_exec
from dsa_config import settings
from dsa_exec import MlaCache, sparse_mla_decode, sparse_mla_prefill
from dsa_exec.core.errors import UnsupportedCall
from dsa_exec.core.hardware import assumed
from dsa_exec.core.vendors import Missing
from dsa_exec.dispatch.select import weigh
from dsa_exec.layouts.mla_kv import MlaLayout
from dsa_exec.ops.sparse_mla_decode import Call as DecodeCall
from dsa_exec.ops.sparse_mla_decode import measured as decode_measured
from dsa_exec.ops.sparse_mla_prefill import Call as PrefillCall
from dsa_exec.ops.sparse_mla_prefill import measured as prefill_measured

SCALE = 576**-0.5
ROOT = Path(dsa_exec.__file__).parents[1]


def bf16(*shape: int) -> torch.Tensor:
    return torch.zeros(*shape, dtype=torch.bfloat16)


def prefill(fake, q=None, kv=None, **others):
    q, kv = bf16(2, 16, 576) if q is None else q, bf16(9, 576) if kv is None else kv
    indices = torch.zeros(q.shape[0], 4, dtype=torch.int32)
    hw = fake.capabilities() if isinstance(fake, FakeFlashMla) else fake
    with assumed(hw), settings.override(sparse_mla_prefill_backend="flash_mla"):
        return sparse_mla_prefill(q, kv, indices, sm_scale=SCALE, **others)


def decode(fake, q=None, cache=None, **others):
    q = bf16(2, 16, 576) if q is None else q
    cache = MlaCache(torch.zeros(64, 656, dtype=torch.uint8), MlaLayout()) if cache is None else cache
    slots = torch.zeros(q.shape[0], 4, dtype=torch.int32)
    hw = fake.capabilities() if isinstance(fake, FakeFlashMla) else fake
    with assumed(hw), settings.override(sparse_mla_decode_backend="flash_mla"):
        return sparse_mla_decode(q, cache, slots, sm_scale=SCALE, **others)


BOTH = pytest.mark.parametrize("attend", [prefill, decode])


@BOTH
@pytest.mark.parametrize(
    ("fake", "sentence"),
    [
        (FakeFlashMla("sm80"), "arch=sm80: flash_mla has sparse kernels for sm90, sm100, sm103"),
        (FakeFlashMla("gfx942"), "arch=gfx942: flash_mla has sparse kernels"),
        (FakeFlashMla(build="old"), r"flash_mla \(sgl-flash-mla 1.0.0, .* 1\) makes a schedule of lengths"),
        (FakeFlashMla(build="dropped"), "has enable_batch_invariant and no use_legacy"),
        (FakeFlashMla(has_legacy=False), "was built without its legacy kernels"),
    ],
)
def test_builds_and_devices_that_cannot_are_refused(attend, fake, sentence):
    """In one sentence, before anything of the library is called."""
    with pytest.raises(UnsupportedCall, match=sentence):
        attend(fake)
    assert fake.calls == []


@BOTH
def test_a_missing_library_or_triton_is_refused(attend):
    """Whoever names the backend is told what is missing; without Triton nobody would make up for the library."""
    hw = FakeFlashMla().capabilities()
    missing = {"flash_mla": Missing("flash_mla", "flash_mla is not installed (pip install sgl-flash-mla)")}
    with pytest.raises(UnsupportedCall, match="flash_mla is not installed"):
        attend(dataclasses.replace(hw, vendors=missing))
    with pytest.raises(UnsupportedCall, match="Triton 3.5.1 is installed; these kernels take 3.6 or newer"):
        attend(dataclasses.replace(hw, triton_version="3.5.1"))


@BOTH
def test_T30_more_than_128_heads_are_refused(attend):
    """T30: there is nothing to pad them to."""
    with pytest.raises(UnsupportedCall, match="129 heads: flash_mla takes at most 128"):
        attend(FakeFlashMla(), bf16(2, 129, 576))


@BOTH
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_only_bf16_is_taken(attend, dtype):
    """The sentence names the dtype that came."""
    kv = {"kv": bf16(9, 576).to(dtype)} if attend is prefill else {}
    with pytest.raises(UnsupportedCall, match=f"q is {str(dtype)[6:]}, flash_mla takes bfloat16"):
        attend(FakeFlashMla(), bf16(2, 16, 576).to(dtype), **kv)


@BOTH
def test_gradients_are_refused(attend):
    """It has no backward pass for 576 channels."""
    q = bf16(2, 16, 576).requires_grad_()
    with pytest.raises(UnsupportedCall, match="q requires a gradient"):
        attend(FakeFlashMla(), q)
    with torch.no_grad():
        attend(FakeFlashMla(), q)


def test_other_channels_are_refused():
    """576, 512 of them values, and nothing else."""
    with pytest.raises(UnsupportedCall, match="rows of 512 channels, 512 of them values: flash_mla takes 576 and 512"):
        prefill(FakeFlashMla(), bf16(2, 16, 512), bf16(9, 512))
    with pytest.raises(UnsupportedCall, match="rows of 576 channels, 256 of them values"):
        prefill(FakeFlashMla(), d_v=256)
    layout = MlaLayout(latent_dim=256)
    cache = MlaCache(torch.zeros(64, layout.token_bytes, dtype=torch.uint8), layout)
    with pytest.raises(UnsupportedCall, match="tokens of 256 and 64 channels, flash_mla takes 512 and 64"):
        decode(FakeFlashMla(), bf16(2, 16, 320), cache)


def test_rows_that_do_not_begin_at_16_bytes_are_refused():
    """kv is read where it is; nobody copies 64 Ki rows unasked."""
    with pytest.raises(UnsupportedCall, match=r"kv has strides \[579, 1\]: its rows do not begin at multiples of 16"):
        prefill(FakeFlashMla(), kv=bf16(9, 579)[:, :576])
    with pytest.raises(UnsupportedCall, match="kv has strides"):
        prefill(FakeFlashMla(), kv=bf16(9 * 576 + 1)[1:].view(9, 576))
    data = torch.zeros(64 * 656 + 8, dtype=torch.uint8)[8:].view(64, 656)
    with pytest.raises(UnsupportedCall, match="the cache does not begin at a multiple of 16 bytes"):
        decode(FakeFlashMla(), cache=MlaCache(data, MlaLayout()))


def test_a_cache_that_is_no_whole_number_of_pages_is_refused():
    """100 tokens of pages of one are not pages of 64."""
    cache = MlaCache(torch.zeros(100, 656, dtype=torch.uint8), MlaLayout(page_tokens=1))
    with pytest.raises(UnsupportedCall, match="the cache has 100 slots, flash_mla takes pages of 64"):
        decode(FakeFlashMla(), cache=cache)


def test_T31_a_cache_in_the_models_dtype_is_refused():
    """T31: the ancestor quantises the whole cache on every layer and step; here nothing is done to it."""
    fake = FakeFlashMla()
    cache = MlaCache(bf16(64, 576), MlaLayout("model"))
    before = cache.data.clone()
    with pytest.raises(
        UnsupportedCall, match="the cache has format model, flash_mla decodes fp8; no cache is quantised"
    ):
        decode(fake, cache=cache)
    assert fake.calls == []
    assert torch.equal(cache.data, before)


def test_a_sink_needs_a_build_that_knows_it():
    """Older prefill functions have none; without a sink they will do."""
    fake = FakeFlashMla(build="sinkless")
    with pytest.raises(UnsupportedCall, match="attn_sink is given, and flash_mla_sparse_fwd of .* has no attn_sink"):
        prefill(fake, attn_sink=torch.zeros(16))
    prefill(fake)
    decode(fake, attn_sink=torch.zeros(16))
    assert len(fake.calls) == 2


@pytest.fixture
def compiled(monkeypatch):
    """As if Triton compiled for the device, so that the gluon kernels would take the calls."""
    monkeypatch.setattr("dsa_exec.core.triton_support.is_interpreted", lambda: False)


def prefill_call(heads: int, rows: int, *, kv_stride: int = 576) -> PrefillCall:
    kv = bf16(9, kv_stride)[:, :576]
    return PrefillCall(bf16(rows, heads, 576), kv, torch.zeros(rows, 4, dtype=torch.int32), SCALE, 512, None)


def decode_call(heads: int, rows: int) -> DecodeCall:
    cache = MlaCache(torch.zeros(64, 656, dtype=torch.uint8), MlaLayout())
    return DecodeCall(bf16(rows, heads, 576), cache, torch.zeros(rows, 4, dtype=torch.int32), SCALE, None)


@pytest.mark.parametrize(
    ("op", "call", "chosen"),
    [
        ("sparse_mla_prefill", prefill_call(16, 2), "gluon"),
        ("sparse_mla_prefill", prefill_call(48, 2), "gluon"),
        ("sparse_mla_prefill", prefill_call(64, 2), "flash_mla"),
        ("sparse_mla_prefill", prefill_call(128, 2), "flash_mla"),
        ("sparse_mla_decode", decode_call(8, 128), "gluon"),
        ("sparse_mla_decode", decode_call(16, 128), "gluon"),
        ("sparse_mla_decode", decode_call(128, 1), "gluon"),
        ("sparse_mla_decode", decode_call(64, 63), "gluon"),
        ("sparse_mla_decode", decode_call(64, 64), "flash_mla"),
        ("sparse_mla_decode", decode_call(96, 7), "gluon"),
        ("sparse_mla_decode", decode_call(96, 8), "flash_mla"),
        ("sparse_mla_decode", decode_call(96, 2), "flash_mla"),
        ("sparse_mla_decode", decode_call(128, 300), "flash_mla"),
    ],
)
def test_auto_takes_what_was_measured_to_be_faster(compiled, op, call, chosen):
    """On sm90: flash_mla with many heads and enough rows, our own kernel else, with the figure in the sentence."""
    decision = weigh(op, call, FakeFlashMla().capabilities())
    assert decision.backend.name == chosen
    assert decision.refusals == ()
    if chosen == "gluon":
        ((name, sentence),) = decision.declined
        assert name == "flash_mla"
        assert f"{call.q.shape[1]} heads, {call.q.shape[0]} rows: on an H100 the gluon kernel took 0." in sentence


def test_the_sentence_of_a_decline(compiled):
    """It names the call, the measured share of time, and where that is from."""
    decision = weigh("sparse_mla_decode", decode_call(24, 40), FakeFlashMla().capabilities())
    assert decision.why == (
        "auto: flash_mla declines: 24 heads, 40 rows: on an H100 the gluon kernel took 0.53 of its time "
        "with 16 heads and 32 rows (benchmarks/results/h100/sparse-decode-grid.json)"
    )


def test_nothing_is_declined_for_a_kernel_that_refuses(compiled):
    """The gluon kernel takes no rows at odd addresses of q; flash_mla has them copied, and the decision says so."""
    call = prefill_call(16, 2)
    call = dataclasses.replace(call, q=bf16(2, 16, 579)[..., :576])
    decision = weigh("sparse_mla_prefill", call, FakeFlashMla().capabilities())
    assert decision.why == "auto: the first choice here; 16 heads padded to 64"
    call = dataclasses.replace(call, q=bf16(2, 64, 579)[..., :576])
    decision = weigh("sparse_mla_prefill", call, FakeFlashMla().capabilities())
    assert decision.why.endswith("; q with strides [37056, 579, 1] copied to be contiguous")


def test_off_hopper_auto_takes_prefill_and_not_decode(compiled):
    """Some builds for sm100 misread the scales of the cache, and no build was run there."""
    hw = FakeFlashMla("sm100").capabilities()
    assert weigh("sparse_mla_prefill", prefill_call(16, 2), hw).backend.name == "flash_mla"
    decision = weigh("sparse_mla_decode", decode_call(16, 2), hw)
    assert decision.backend.name == "triton"
    assert "flash_mla declines: sm100: some builds take the cache's scales for powers of two there" in decision.why


def test_elsewhere_nothing_is_missed():
    """On a CPU `auto` falls back to nothing: there is no warning about a library that could not run."""
    q, indices = torch.zeros(1, 2, 576), torch.zeros(1, 4, dtype=torch.int32)
    decision = weigh(
        "sparse_mla_prefill",
        PrefillCall(q, q[0], indices, SCALE, 512, None),
        dataclasses.replace(FakeFlashMla().capabilities(), device_type="cpu", arch="cpu"),
    )
    assert decision.refusals == ()
    assert ("flash_mla", "for sm90, sm100, sm103, this is cpu") in decision.declined


def test_the_measured_shares_of_prefill_are_the_records():
    """Each is our median over the library's, as the committed record has them."""
    record = json.loads((ROOT / prefill_measured.BESIDE_FLASH_MLA.record).read_text())
    shares = set()
    for row in record["rows"]:
        if row["op"] == "sparse_mla_prefill":
            heads = int(row["work"].split(", ")[1].split()[0])
            share = row["ours"]["median_us"] / row["vendors"]["flash_mla, by the op"]["median_us"]
            shares.add((heads, int(row["work"].split("x")[0]), round(share, 2)))
    assert set(prefill_measured.BESIDE_FLASH_MLA.shares) == shares


def test_the_measured_shares_of_decode_are_the_records():
    """Those of a grid, since by these who is the faster one changes back and forth with the number of requests."""
    record = json.loads((ROOT / decode_measured.BESIDE_FLASH_MLA.record).read_text())
    shares = set()
    for row in record["rows"]:
        choices = row["choices"]
        share = choices["gluon"]["median_us"] / choices["flash_mla"]["median_us"]
        shares.add((row["heads"], row["rows"], round(share, 2)))
    assert set(decode_measured.BESIDE_FLASH_MLA.shares) == shares
