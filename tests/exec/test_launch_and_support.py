"""Launch parameters that a setting replaces, and which devices Triton kernels take."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from dsa_config import BadValue, settings
from dsa_exec.core import triton_support
from dsa_exec.core.errors import LaunchError
from dsa_exec.core.hardware import Capabilities
from dsa_exec.core.launch import chosen_launch

H100 = Capabilities("cuda", "sm90", "2.11", "3.6.0")


@dataclass(frozen=True, slots=True)
class Launch:
    warps: int = 4
    blocks: int = 1


def test_the_measured_choice_holds_without_the_setting():
    """The very dataclass that the rules chose."""
    launch = Launch()
    assert chosen_launch("topk", "gluon", launch) is launch


def test_fields_are_replaced_for_one_backend_of_one_op():
    """Parts stand apart by blanks or commas; other ops and backends keep theirs."""
    with settings.override(kernel_launch="topk.gluon.warps=8, topk.gluon.blocks=2 topk.triton.warps=16"):
        assert chosen_launch("topk", "gluon", Launch()) == Launch(8, 2)
        assert chosen_launch("topk", "triton", Launch()) == Launch(16, 1)
        assert chosen_launch("mqa_logits", "gluon", Launch()) == Launch()


def test_a_field_that_is_none_is_an_error_with_those_that_are():
    """The part and the fields are named."""
    with (
        settings.override(kernel_launch="topk.gluon.wraps=8"),
        pytest.raises(LaunchError, match=r"gluon\.wraps' names no launch parameter; wanted one of warps, blocks"),
    ):
        chosen_launch("topk", "gluon", Launch())


@pytest.mark.parametrize("text", ["topk.warps=8", "topk.gluon.warps=8topk.gluon.blocks=2", "topk.gluon.warps=-1"])
def test_another_form_is_refused_where_it_is_given(text):
    """The setting validates its text, and says in words what it takes."""
    with pytest.raises(BadValue, match=r"is not op\.backend\.field=number, such as topk\.gluon\.blocks=8"):
        settings.override(kernel_launch=text)


@pytest.mark.parametrize(
    ("hw", "words"),
    [
        (Capabilities("cuda", "sm90", "2.11", None), "Triton is not installed"),
        (Capabilities("cuda", "sm90", "2.11", "3.4.0"), "Triton 3.4.0 is installed"),
    ],
)
def test_devices_are_refused_in_words(hw, words):
    """With the version or the device in the sentence."""
    assert words in str(triton_support.refuses_without_triton(hw))
    assert words in str(triton_support.refuses_without_hopper(hw))


def test_other_accelerators_are_refused_by_name():
    """Portable kernels know GPUs of CUDA and ROCm, those for Hopper one architecture."""
    xpu = Capabilities("xpu", "xpu", "2.11", "3.6.0")
    assert "not written for xpu" in str(triton_support.refuses_without_triton(xpu))
    assert "arch=xpu" in str(triton_support.refuses_without_hopper(xpu))


def test_the_interpreter_and_a_gpu_exclude_each_other(monkeypatch):
    """Interpreted kernels run on the CPU, compiled ones do not."""
    cpu = Capabilities("cpu", "cpu", "2.11", "3.6.0")
    monkeypatch.setattr(triton_support, "is_interpreted", lambda: True)
    assert triton_support.refuses_without_triton(cpu) is None
    assert "interpreted on the CPU" in str(triton_support.refuses_without_triton(H100))
    assert "arch=cpu" in str(triton_support.refuses_without_hopper(cpu))
    monkeypatch.setattr(triton_support, "is_interpreted", lambda: False)
    assert "TRITON_INTERPRET=1" in str(triton_support.refuses_without_triton(cpu))
    assert triton_support.refuses_without_triton(H100) is None
    assert triton_support.refuses_without_hopper(H100) is None


def test_auto_passes_on_off_the_device():
    """A decline, not a refusal: nothing is missed there."""
    assert triton_support.declines_off_gpu(H100) is None
    assert triton_support.declines_off_hopper(H100) is None
    assert "for sm90, this is sm80" in str(triton_support.declines_off_hopper(Capabilities("cuda", "sm80", "2", "3.6")))
