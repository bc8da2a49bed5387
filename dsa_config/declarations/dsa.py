"""The settings of DeepSeek Sparse Attention, under the environment names that engines use for them."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import field_validator
from pydantic_settings import SettingsConfigDict

from dsa_config.declarations.backends import backend_choices, backend_setting
from dsa_config.declare import LiveSettings, setting
from dsa_config.old_words import OldWords
from dsa_config.renames import Renamed
from dsa_config.version import __version__

INT32_MAX = 2**31 - 1

_LAUNCH_PART = re.compile(r"[a-z_]+\.[a-z_]+\.[a-z_]+=[0-9]+")

_ENGINE_NAMES = OldWords(
    {"flashmla_sparse": "sparse_bf16", "flashmla_kv": "fp8_kv"},
    removed={"flashmla_auto": "auto, which chooses for each batch"},
)
"""The names that engines have for ways of attending, as far as they are ours too."""


def _nsa(suffix: str) -> list[Renamed]:
    """The name from before the technique was renamed from NSA to DSA."""
    return [Renamed(f"SGLANG_NSA_{suffix}", since="0.1", remove_in="1.0")]


class DSASettings(LiveSettings):
    """Settings of DeepSeek Sparse Attention."""

    model_config = SettingsConfigDict(env_prefix="SGLANG_DSA_")
    config_table = ("tool", "dsa")
    project_version = __version__
    read_by = ("dsa_exec",)
    called_by = ("torch", "transformers", "accelerate", "peft")
    headings = {  # noqa: RUF012 - a ClassVar of the base
        "fuse_topk": "Steps of a forward pass",
        "mqa_logits_free_mem_fraction": "Memory of indexer logits",
        "tp_index_rows": "Many GPUs",
        "hip_disable_preshuffle": "ROCm",
        "index_k_format": "Cache formats",
        "index_quant_backend": "Backends",
        "debug_check_indices": "Debugging",
    }

    fuse_topk: bool = setting(True, deprecated_names=_nsa("FUSE_TOPK"))
    """Run top-k and the page-table transform as one kernel. Off: top-k returns positions and a second step maps them
    to slots."""

    enable_mtp_precompute_metadata: bool = setting(True, deprecated_names=_nsa("ENABLE_MTP_PRECOMPUTE_METADATA"))
    """Work out the metadata of multi-token prediction once a step and copy it to every draft step."""

    use_fused_metadata_copy: bool = setting(True, env="SGLANG_USE_FUSED_METADATA_COPY")
    """Copy precomputed metadata to all draft steps with one kernel. Off: tensor by tensor."""

    prefill_dense_attn_kv_len_threshold: int = setting(
        2048, ge=0, le=INT32_MAX, deprecated_names=_nsa("PREFILL_DENSE_ATTN_KV_LEN_THRESHOLD")
    )
    """Prefill with dense attention while the longest KV length is at most this, in tokens, and at most the number of
    tokens that the model selects. 0 turns it off."""

    prefill_attention: Annotated[Literal["auto", "dense", "sparse_bf16", "fp8_kv"], _ENGINE_NAMES] = setting("auto")
    """How prefill attends: to all tokens (dense), to selected ones gathered in 16 bits (sparse_bf16), or to selected
    ones as an FP8 cache holds them (fp8_kv). auto chooses for each batch; what is named and cannot be done is an
    error."""

    decode_attention: Annotated[Literal["auto", "sparse_bf16", "fp8_kv"], _ENGINE_NAMES] = setting("auto")
    """How decode and speculative steps attend, as for prefill_attention; always to selected tokens."""

    mqa_logits_free_mem_fraction: float = setting(0.2, gt=0, le=1, allow_inf_nan=False)
    """The share of free memory, and of memory outside the static pools, that one chunk of indexer logits may take."""

    mem_fraction_static: float | None = setting(None, ge=0, le=1, allow_inf_nan=False)
    """The share of device memory that the engine gives to weights and pools. None: not known."""

    mqa_logits_max_chunk_bytes: int = setting(0, ge=0)
    """The most bytes that one chunk of indexer logits may take, whatever is free. 0: no such limit."""

    retry_out_of_memory: bool = setting(True)
    """Where memory runs out in a chunk of rows, release what is kept and do the chunk again with half the rows, down to
    one. Off, and while a CUDA graph is captured: the error is raised as it came."""

    tp_index_rows: Literal["auto", "replicated", "split"] = setting("auto")
    """How ranks that have the same query rows select for them: each for all rows (replicated), or each for its share of
    them, and all gather what was selected (split). auto splits a prefill from tp_index_rows_logits_threshold on, and
    replicates decode."""

    # On two H100s with NVLink splitting takes 0.54 to 0.84 of the time at 2^27 logits and more of one long prompt, and
    # 1.06 to 1.7 at 2^26, where the ranks' hosts have not told each other that all is well before the device is done.
    tp_index_rows_logits_threshold: int = setting(2**27, ge=0)
    """From how many logits on auto splits the rows of a prefill: rows times keys, 1024 x 131072 by default."""

    cp_merge: Literal["auto", "replicated", "split"] = setting("auto")
    """How ranks that have different keys find the best of all: each for all rows (replicated), or each for its share of
    them, of which the others are told the bounds (split). auto splits from cp_merge_rows_threshold on."""

    cp_merge_rows_threshold: int = setting(1024, ge=0)
    """From how many query rows on auto splits the merging of what ranks with different keys selected."""

    hip_disable_preshuffle: bool = setting(False, effect="allocate", deprecated_names=_nsa("HIP_DISABLE_PRESHUFFLE"))
    """On ROCm, keep the index-K cache in pages of one token, not in preshuffled pages of 64."""

    use_aiter: bool = setting(False, env="SGLANG_USE_AITER", effect="call and allocate")
    """Allow aiter's kernels on ROCm, and the preshuffled pages that they are fastest on."""

    aiter_enable_aot_gluon_pa_mqa_logits: bool = setting(
        False, env="AITER_ENABLE_AOT_GLUON_PA_MQA_LOGITS", effect="allocate"
    )
    """aiter's paged-logits kernel is there as one that was compiled ahead of time, so that preshuffled pages need no
    recent Triton. aiter reads the variable itself, when it is imported, and takes nothing but 1 for on."""

    index_k_format: Literal["fp8", "model"] = setting("fp8", effect="allocate")
    """What the index-K cache holds: e4m3 with a scale a token, or the model's own dtype with nothing quantised."""

    kv_format: Literal["fp8", "model"] = setting("fp8", effect="allocate")
    """What the MLA cache holds: e4m3 latents with a scale for every 128 channels and bf16 RoPE parts (656 bytes a token
    in DeepSeek-V3.2), or the model's own dtype with nothing quantised."""

    index_quant_backend: Annotated[str, backend_choices("index_quant")] = backend_setting()
    """Which kernel quantises index queries."""

    index_store_backend: Annotated[str, backend_choices("index_store")] = backend_setting()
    """Which kernel writes the index-K cache."""

    index_gather_backend: Annotated[str, backend_choices("index_gather")] = backend_setting()
    """Which kernel gathers keys from the index-K cache."""

    mqa_logits_backend: Annotated[str, backend_choices("mqa_logits")] = backend_setting()
    """Which kernel scores gathered keys (prefill)."""

    paged_mqa_logits_backend: Annotated[str, backend_choices("paged_mqa_logits")] = backend_setting()
    """Which kernel scores keys in the cache (decode)."""

    topk_backend: Annotated[str, backend_choices("topk")] = backend_setting()
    """Which kernel picks the best-scored positions."""

    topk_candidates_backend: Annotated[str, backend_choices("topk_candidates")] = backend_setting()
    """Which kernel gives scores and positions of a rank's best keys, for the other ranks."""

    topk_merge_backend: Annotated[str, backend_choices("topk_merge")] = backend_setting()
    """Which kernel finds the best of all ranks' best keys."""

    index_select_backend: Annotated[str, backend_choices("index_select")] = backend_setting()
    """Which implementation scores and picks under the logits budget."""

    kv_store_backend: Annotated[str, backend_choices("kv_store")] = backend_setting()
    """Which kernel writes the MLA cache."""

    kv_gather_backend: Annotated[str, backend_choices("kv_gather")] = backend_setting()
    """Which kernel reads tokens back from the MLA cache."""

    sparse_mla_prefill_backend: Annotated[str, backend_choices("sparse_mla_prefill")] = backend_setting()
    """Which kernel attends to selected rows in prefill."""

    dense_mla_prefill_backend: Annotated[str, backend_choices("dense_mla_prefill")] = backend_setting()
    """Which kernel attends to whole windows in prefill."""

    sparse_mla_decode_backend: Annotated[str, backend_choices("sparse_mla_decode")] = backend_setting()
    """Which kernel attends to selected slots of the cache in decode."""

    attention_merge_backend: Annotated[str, backend_choices("attention_merge")] = backend_setting()
    """Which kernel puts attention over several ranks' parts of the keys together."""

    step_metadata_backend: Annotated[str, backend_choices("step_metadata")] = backend_setting()
    """Which kernel works out the lengths and pages of the rows of a decode or speculative step."""

    kernel_launch: str = setting("")
    """Launch parameters for experiments, such as `topk.gluon.blocks=8`: op.backend.field=number, several of them apart
    by blanks or commas. Without it the measured choice holds."""

    debug_check_indices: bool = setting(
        False,
        may_differ="it checks the tensors of one process and changes none; the suspected rank alone may pay for it",
    )
    """Check the values of slots, indices and lengths on accelerators too, at the price of a host synchronisation."""

    debug_log_decisions: bool = setting(False, may_differ="it is about the log of one process and changes no result")
    """Log every choice of a backend, not only the first of its kind."""

    @field_validator("kernel_launch")
    @classmethod
    def _names_fields(cls, text: str) -> str:
        for part in text.replace(",", " ").split():
            if not _LAUNCH_PART.fullmatch(part):
                raise ValueError(f"{part!r} is not op.backend.field=number, such as topk.gluon.blocks=8")
        return text
