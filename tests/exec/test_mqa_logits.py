"""Ragged logits: what the contract cannot say of them."""

from __future__ import annotations

import dataclasses
from importlib.util import find_spec

import pytest
import torch

from dsa_config import settings
from dsa_exec import mqa_logits, topk
from dsa_exec.core.errors import UnsupportedCall
from dsa_exec.core.hardware import Capabilities
from dsa_exec.core.numerics import E4M3
from dsa_exec.ops.mqa_logits import Call, on_gluon, on_triton
from dsa_exec.ops.mqa_logits.launch import hopper_launch, portable_launch

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
IS_HOPPER = torch.cuda.is_available() and torch.cuda.get_device_capability() == (9, 0)
HOPPER = Capabilities("cuda", "sm90", torch.__version__, "3.6.0")
needs_triton = pytest.mark.skipif(find_spec("triton") is None, reason="needs Triton")
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
needs_hopper = pytest.mark.skipif(not IS_HOPPER, reason="needs a Hopper GPU")
KERNELS = [
    pytest.param("triton", marks=needs_triton),
    pytest.param("gluon", marks=[needs_hopper, pytest.mark.gpu]),
]
BACKENDS = ["torch", *KERNELS]


def arguments(windows, s: int, *, heads: int = 32, channels: int = 128, dtype: torch.dtype = E4M3):
    generator = torch.Generator().manual_seed(7)
    rows = len(windows)
    made = {
        "q": torch.randn(rows, heads, channels, generator=generator).to(dtype),
        "keys": torch.randn(s, channels, generator=generator).to(dtype),
        "scales": torch.rand(s, generator=generator) + 0.5 if dtype is E4M3 else None,
        "head_weights": torch.randn(rows, heads, generator=generator),
        "starts": torch.tensor([start for start, _ in windows], dtype=torch.int32),
        "ends": torch.tensor([end for _, end in windows], dtype=torch.int32),
    }
    return {name: value if value is None else value.to(DEVICE) for name, value in made.items()}


def random_windows(rows: int, s: int):
    generator = torch.Generator().manual_seed(rows)
    starts = torch.randint(0, s, (rows,), generator=generator)
    ends = torch.randint(0, s + 1, (rows,), generator=generator)
    return list(zip(starts.tolist(), ends.tolist(), strict=True))


def poisoned(rows: int, s: int) -> torch.Tensor:
    return torch.full((rows, s), torch.nan, device=DEVICE)


def logits_of(backend: str, args, **more) -> torch.Tensor:
    with settings.override(mqa_logits_backend=backend):
        return mqa_logits(**args, **more)


def call_of(args, **changed) -> Call:
    return dataclasses.replace(Call(**args, clean=True, out=None), **changed)


@pytest.mark.parametrize("backend", BACKENDS)
def test_t18_garbage_outside_windows_reaches_no_consumer(backend):
    """T18: logits that are not cleaned, over NaN, are selected from as clean ones: readers keep to the windows."""
    windows = [(0, 300), (5, 129), (127, 128), (256, 300), (9, 9), (130, 200)]
    args = arguments(windows, 300, heads=64 if backend == "gluon" else 2)
    lengths = args["ends"] - args["starts"]
    for k in (1, 60, 200):
        clean = topk(logits_of(backend, args), lengths, k, row_starts=args["starts"])
        raw = logits_of(backend, args, clean=False, out=poisoned(6, 300))
        assert torch.equal(topk(raw, lengths, k, row_starts=args["starts"]), clean)


@pytest.mark.parametrize("backend", KERNELS)
def test_tiles_that_no_row_sees_are_not_computed(backend):
    """Between windows that lie far apart, and before and after all of them, `out` is left as it was."""
    args = arguments([(300, 303), (1190, 1200), (700, 705), (301, 302)], 2000, heads=64 if backend == "gluon" else 3)
    left = logits_of(backend, args, clean=False, out=poisoned(4, 2000)).isnan().all(0)
    for start, end in ((0, 256), (384, 640), (768, 1152), (1280, 2000)):
        assert left[start:end].all()
    assert not left[300:303].any()


@pytest.mark.parametrize("clean", [True, False])
@pytest.mark.parametrize("heads", [32, 64])
@pytest.mark.parametrize("backend", KERNELS)
def test_agrees_with_the_specification_over_many_tiles(backend, heads, clean):
    """Windows of every kind over several tiles, blocks of rows and chunks; twenty runs are equal to the bit."""
    rows, s = (300, 3000) if DEVICE.type == "cuda" else (9, 700)
    args = arguments(random_windows(rows, s), s, heads=heads)
    wanted = logits_of("torch", args)
    seen = wanted.isfinite()
    first = logits_of(backend, args, clean=clean, out=poisoned(rows, s + 5)[:, :s])
    assert (first[seen].double() - wanted[seen].double()).norm() < 3e-4 * wanted[seen].double().norm()
    if clean:
        assert torch.equal(first.isneginf(), ~seen)
    for _ in range(20 if DEVICE.type == "cuda" else 2):
        again = logits_of(backend, args, clean=clean, out=poisoned(rows, s + 5)[:, :s])
        assert torch.equal(again[seen], first[seen])


@pytest.mark.parametrize("backend", KERNELS)
def test_nothing_is_written_beside_the_rows(backend):
    """Columns beyond the keys and rows beyond the last are the caller's."""
    args = arguments([(0, 70), (3, 9), (60, 70)], 70, heads=64 if backend == "gluon" else 5)
    whole = poisoned(5, 200)
    logits_of(backend, args, out=whole[:3, :70])
    assert whole[:, 70:].isnan().all()
    assert whole[3:].isnan().all()
    assert not whole[:3, :70].isnan().any()


@needs_triton
def test_f32_products_are_not_rounded():
    """Nothing quantised is multiplied in f32, not in the ten bits of matrix units' TF32."""
    args = arguments([(0, 90)] * 3, 90, heads=5, channels=200, dtype=torch.float32)
    wide = {name: value if value is None else value.double().cpu() for name, value in args.items()}
    scores = torch.einsum("thd,sd->ths", wide["q"], wide["keys"]).relu()
    wanted = torch.einsum("ths,th->ts", scores, wide["head_weights"])
    assert (logits_of("triton", args).cpu() - wanted).abs().max() < 2e-6 * wanted.abs().max()


@needs_triton
def test_nan_in_a_window_is_told():
    """A key that is NaN gives NaN to the rows that see it, and to no other key."""
    args = arguments([(0, 9), (5, 9)], 9, heads=3, dtype=torch.bfloat16)
    args["keys"][2, 7] = torch.nan
    logits = logits_of("triton", args)
    assert logits.isnan().nonzero().tolist() == [[0, 2]]
    assert torch.equal(logits.isnan(), logits_of("torch", args).isnan())


@needs_triton
@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")  # NumPy, under the interpreter
def test_infinite_keys_are_as_the_specification_has_them():
    """Heads that only fill up a power of two multiply an infinite key by nothing."""
    args = arguments([(0, 9)], 9, heads=5, dtype=torch.bfloat16)
    args["q"].abs_()
    args["head_weights"].abs_()
    args["keys"][4] = torch.inf
    assert torch.equal(logits_of("triton", args)[0].isposinf(), torch.arange(9, device=DEVICE) == 4)


@pytest.mark.gpu
@needs_gpu
@pytest.mark.parametrize("backend", KERNELS)
def test_t26_rows_beyond_two_to_the_31(backend):
    """T26: the last row of a buffer of more than 2^31 logits is where it should be."""
    args = arguments([(0, 130)] * 9, 130, heads=64)
    stride = 2**28 + 4
    out = torch.empty(8 * stride + 130, device=DEVICE).as_strided((9, 130), (stride, 1))
    logits_of(backend, args, out=out.fill_(torch.nan))
    assert torch.equal(out, logits_of(backend, args))


@needs_triton
@pytest.mark.parametrize("launch", ["chunk_keys=64 tile_keys=32", "columns=16 stages=1", "channels=32"])
def test_launch_parameters_change_no_more_than_the_order_of_sums(launch):
    """What `kernel_launch` replaces takes effect, and the logits stay."""
    args = arguments(random_windows(9, 300), 300, heads=3)
    text = " ".join(f"mqa_logits.triton.{part}" for part in launch.split())
    plain = logits_of("triton", args)
    with settings.override(kernel_launch=text):
        changed = logits_of("triton", args)
    seen = plain.isfinite()
    assert torch.equal(changed.isfinite(), seen)
    # A smaller tile takes other matrix units, which sum products of e4m3 in other groups.
    allowed = (1e-3 if DEVICE.type == "cuda" else 2e-6) * plain[seen].abs().max()
    assert (changed[seen] - plain[seen]).abs().max() < allowed


@pytest.mark.parametrize("rows", [1, 3, 4096, 10**5])
@pytest.mark.parametrize("key_count", [1, 4096, 10**6])
@pytest.mark.parametrize("heads", [1, 12, 64, 128])
def test_launches_fit_the_kernels(rows, key_count, heads):
    """Powers of two, whole tiles in a chunk, and no more programs than a grid takes."""
    for element_bytes in (1, 2, 4):
        launch = portable_launch("sm90", rows, heads, 128, key_count, element_bytes)
        for number in (launch.columns, launch.tile_keys, launch.channels, launch.chunk_keys):
            assert number & (number - 1) == 0
        assert launch.columns >= heads
        assert launch.chunk_keys % launch.tile_keys == 0
    for chosen in (launch, hopper_launch(rows, heads, key_count)):
        assert chosen.chunk_keys % 128 == 0
        assert rows * (-(-key_count // chosen.chunk_keys)) < 2**31


@needs_triton
@pytest.mark.parametrize("name", ["q", "keys", "head_weights"])
def test_kernels_refuse_to_swallow_gradients(name):
    """By name it is an error that says which argument; `auto` gives the specification, through which gradients pass."""
    args = arguments([(0, 4)], 4, heads=2, dtype=torch.float32)
    args[name].requires_grad_()
    with pytest.raises(UnsupportedCall, match=f"triton: {name} requires a gradient"):
        logits_of("triton", args)
    assert logits_of("auto", args).requires_grad
    with torch.no_grad():
        assert not logits_of("triton", args).requires_grad


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"heads": 12}, "12 heads of 128 channels"),
        ({"channels": 64}, "64 heads of 64 channels"),
        ({"dtype": torch.bfloat16}, "q is bfloat16"),
    ],
)
def test_hopper_says_what_it_does_not_take(monkeypatch, change, words):
    """Refusals hold the value; other calls run."""
    monkeypatch.setattr(on_gluon, "refuses_without_hopper", lambda hw: None)
    args = arguments([(0, 4)], 4, **{"heads": 64, **change})
    assert words in on_gluon.BACKEND.refuses(call_of(args), HOPPER)
    assert on_gluon.BACKEND.refuses(call_of(arguments([(0, 4)], 4, heads=64)), HOPPER) is None


def test_hopper_says_what_the_copy_engine_does_not_take(monkeypatch):
    """Rows and addresses that are no multiples of 16 bytes, and heads that do not lie side by side."""
    monkeypatch.setattr(on_gluon, "refuses_without_hopper", lambda hw: None)
    call = call_of(arguments([(0, 4), (0, 3)], 4, heads=64))
    bytes_of = torch.zeros(4 * 200, dtype=torch.uint8, device=DEVICE).view(E4M3)
    for changed, words in (
        ({"q": torch.zeros(2, 65, 128, device=DEVICE).to(E4M3)[:, :64]}, "q has strides"),
        ({"keys": bytes_of.as_strided((4, 128), (131, 1))}, "keys have rows 131 bytes apart"),
        ({"keys": bytes_of.as_strided((4, 128), (0, 1))}, "keys have rows 0 bytes apart"),
        ({"keys": bytes_of[3:].as_strided((4, 128), (144, 1), 3)}, "keys begins 3 bytes past a multiple of 16"),
    ):
        assert words in on_gluon.BACKEND.refuses(dataclasses.replace(call, **changed), HOPPER)
    assert (
        on_gluon.BACKEND.refuses(dataclasses.replace(call, keys=bytes_of.as_strided((4, 128), (144, 1))), HOPPER)
        is None
    )


def test_auto_takes_kernels_only_on_gpus():
    """Off a GPU the interpreter is no choice; off Hopper its kernel is none."""
    call = call_of(arguments([(0, 4)], 4, heads=64))
    cpu, ampere = Capabilities("cpu", "cpu", "2", "3.6.0"), dataclasses.replace(HOPPER, arch="sm80")
    assert "slower than torch" in on_triton.BACKEND.declines(call, cpu)
    assert on_triton.BACKEND.declines(call, ampere) is None
    assert "sm80" in on_gluon.BACKEND.declines(call, ampere)
    assert on_gluon.BACKEND.declines(call, HOPPER) is None


@pytest.mark.parametrize(("arch", "taken"), [("sm80", False), ("sm89", True), ("sm90", True), ("gfx942", False)])
def test_e4m3_where_triton_multiplies_it(monkeypatch, arch, taken):
    """Where the device has no products of e4m3 the refusal names it; other dtypes run there."""
    monkeypatch.setattr(on_triton, "refuses_without_triton", lambda hw: None)
    hw = dataclasses.replace(HOPPER, arch=arch)
    sentence = on_triton.BACKEND.refuses(call_of(arguments([(0, 4)], 4)), hw)
    assert sentence is None if taken else f"arch={arch}" in sentence
    assert on_triton.BACKEND.refuses(call_of(arguments([(0, 4)], 4, dtype=torch.bfloat16)), hw) is None
