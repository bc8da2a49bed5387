"""What communication and matrix products take, and what the model says of runs on several GPUs."""

from __future__ import annotations

import dataclasses
import statistics
from pathlib import Path

import pytest

import dsa_exec
from dsa_exec.planning.kernel_terms import Work
from dsa_exec.planning.kernel_times import kernel_times
from dsa_exec.planning.machine import Machine, machine, origins
from dsa_exec.planning.measured_runs import compared, selections

SIMPLE = Machine(
    nvlink_gb_s=100,
    network_gb_s=10,
    node_gpus=4,
    nvlink_us=3,
    network_us=7,
    hbm_gb_s=1000,
    fp8_tflops=100,
    gemm_share=0.5,
    layer_us=1,
)
MB = 1e6


def test_every_number_says_where_it_is_from():
    """Measured, of a data sheet, or assumed: nothing stands without."""
    assert set(origins()) == {field.name for field in dataclasses.fields(Machine)}
    assert all(origin.startswith(("measured ", "assumed: ", "data sheet of ")) for origin in origins().values())
    assert (machine().nvlink_gb_s, machine().network_gb_s, machine().node_gpus) == (329, 50, 8)


@pytest.mark.parametrize(
    ("us", "wanted"),
    [
        (SIMPLE.gather_us(4, 8 * MB, 4), 3 + 60),  # three quarters of 8 MB at 100 GB/s
        (SIMPLE.gather_us(4, 8 * MB, 8), 7 + 600),
        (SIMPLE.reduce_us(4, 8 * MB, 4), 3 + 120),
        (SIMPLE.scatter_us(4, 8 * MB, 4), 3 + 60),
        (SIMPLE.scatter_us(8, 8 * MB, 8), 7 + 400),  # half of them lie in the same node
        (SIMPLE.send_us(MB, 2), 3 + 10),
        (SIMPLE.send_us(MB, 5), 7 + 100),
        (SIMPLE.product_us(MB, 0), 2),  # 1 MB at half of 1 TB/s
        (SIMPLE.product_us(MB, 1e9), 20),  # 1 GFLOP at half of 100 TFLOPS takes longer than the megabyte
    ],
)
def test_times_of_links_and_products(us, wanted):
    """Latency, and bytes by bandwidth: of NVLink within a node, of the network beyond it; of two limits the longer."""
    assert us == pytest.approx(wanted)


def test_one_rank_alone_sends_nothing():
    """No latency either."""
    assert SIMPLE.gather_us(1, MB, 1) == SIMPLE.reduce_us(1, MB, 1) == SIMPLE.scatter_us(1, MB, 1) == 0


def run(work, way, gpus, us=1000.0):
    return {"work": work, "way": way, "gpus": gpus, "us": us, "p10_us": 1}


def test_runs_are_compared_with_predictions():
    """On one GPU with the fit; on two with half of the keys, candidates gathered and merged."""
    kernels = kernel_times()
    one, two, rows = compared(
        [
            run("index_select prefill 8192x131072", "", 1, 17976.4),
            run("index_select prefill 8192x131072", "cp keys contiguous", 2, 10_000),
            run("index_select prefill 8192x131072", "cp rows round robin", 2, 9_500),
        ],
        kernels,
        machine(),
    )
    assert one.predicted_us == kernels.us("index_select prefill", Work(8192, 131072, 64))
    assert abs(one.error) < 0.15
    half = kernels.us("index_select prefill", Work(8192, 131072 / 2 + 8191 / 2, 64))
    sent_us = 10 + 8192 * 2048 * 8 / 329e9 * 1e6  # half of what two ranks have together
    assert two.predicted_us == pytest.approx(half + kernels.us("topk", Work(8192, 4096, 0)) + sent_us)
    assert two.error == two.predicted_us / 10_000 - 1
    assert 1.5 < one.predicted_us / two.predicted_us < 2
    assert 1.7 < one.predicted_us / rows.predicted_us < 2


@pytest.mark.parametrize("way", ["cp keys contiguous", "cp keys interleaved", "tp rows"])
@pytest.mark.parametrize("work", ["index_select decode 32x131072", "index_select prefill 4096x65536, 32 heads"])
def test_two_gpus_are_faster_than_one_and_not_twice_as_fast(way, work):
    """Each has half of the work, and what they exchange comes on top."""
    one, two = compared([run(work, "", 1), run(work, way, 2)], kernel_times(), machine())
    assert one.predicted_us / 2 < two.predicted_us < one.predicted_us


def test_attention_on_two_gpus():
    """Half of the heads with nothing to exchange, or half of the keys with outputs to merge."""
    work = "sparse_mla_decode 128x32768, 128 heads"
    kernels = kernel_times()
    one, heads, keys = compared(
        [run(work, "", 1), run(work, "tp heads", 2), run(work, "cp keys", 2)], kernels, machine()
    )
    assert one.predicted_us == kernels.us("sparse_mla_decode", Work(128, 2048, 128))
    assert heads.predicted_us == kernels.us("sparse_mla_decode", Work(128, 2048, 64))
    assert keys.predicted_us > kernels.us("sparse_mla_decode", Work(128, 1024, 128))


def test_outputs_of_parts_of_the_keys_are_gathered():
    """1040 bytes a row and head: bf16 of 512 channels and 16 with the lse. With own heads half of them go."""
    work = "sparse_mla_decode 128x32768, 128 heads"
    every, own = compared(
        [run(work, "cp keys interleaved", 2), run(work, "cp keys interleaved, each rank its heads", 2)],
        kernel_times(),
        machine(),
    )
    part = kernel_times().us("sparse_mla_decode", Work(128, 1024, 128))
    assert every.predicted_us == pytest.approx(part + 10 + 128 * 128 * 1040 / 329e9 * 1e6)
    assert own.predicted_us == pytest.approx(part + 10 + 128 * 128 * 1040 / 2 / 329e9 * 1e6)


@pytest.mark.parametrize("way", ["", "cp keys interleaved", "cp keys interleaved, each rank its heads"])
def test_a_decode_step_is_a_selection_and_attention(way):
    """Both in the same way; selected are 2048 keys of each request."""
    gpus = 2 if way else 1
    works = ("decode step 32x65536, 16 heads", "index_select decode 32x65536", "sparse_mla_decode 32x65536, 16 heads")
    step, index, attention = compared([run(work, way, gpus) for work in works], kernel_times(), machine())
    assert step.predicted_us == index.predicted_us + attention.predicted_us


def test_a_decode_step_with_heads_shared_out():
    """Every rank selects for itself, all of it, and attends with half of the heads."""
    (step,) = compared([run("decode step 32x65536, 16 heads", "tp heads", 2)], kernel_times(), machine())
    index = kernel_times().us("index_select decode", Work(32, 65536, 64))
    assert step.predicted_us == index + kernel_times().us("sparse_mla_decode", Work(32, 2048, 8))


def test_selections_of_one_gpu():
    """Decode steps of one GPU alone, as a fit has them."""
    rows = [
        run("index_select decode 2x524288", "", 1, 90.0),
        run("index_select decode 2x524288", "cp keys", 2),
        run("index_select prefill 4096x65536", "", 1),
        run("decode step 32x65536, 16 heads", "", 1),
    ]
    assert selections(rows) == (("index_select decode", Work(2, 524288, 64), 90.0),)


def test_the_page_has_the_errors_of_the_record():
    """docs/plan.md says of one and of two GPUs how many are predicted, the median error, the worst, and too low."""
    page = " ".join((Path(dsa_exec.__file__).parents[1] / "docs" / "plan.md").read_text("utf-8").split())
    runs = compared(kernel_times().runs, kernel_times(), machine())
    for gpus, most in ((1, 0.1), (2, 0.35)):
        errors = [it.error for it in runs if it.gpus == gpus and it.error is not None]
        median, worst = statistics.median(map(abs, errors)), max(map(abs, errors))
        assert median < most
        told = f"| {gpus} | {len(errors)} of {sum(it.gpus == gpus for it in runs)} | {100 * median:.1f} % |"
        assert f"{told} {100 * worst:.1f} % | {sum(error < 0 for error in errors)} |" in page


def test_what_the_model_does_not_know_has_no_prediction():
    """Other work, or another way to split: told as such, and not guessed."""
    runs = compared(
        [
            run("attend 1x2", "", 1),
            run("decode step 1x2, 8 heads", "sideways", 2),
            run("index_select decode 1x2", "sideways", 2),
            run("sparse_mla_decode 1x2", "", 2),
        ],
        kernel_times(),
        machine(),
    )
    assert [(it.predicted_us, it.error) for it in runs] == [(None, None)] * 4
