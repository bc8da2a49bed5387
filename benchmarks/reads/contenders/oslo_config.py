"""oslo.config: a registered option, which its environment driver reads once."""

from __future__ import annotations

from benchmarks.reads.contender import Contender, Subject


def _build() -> Subject:
    from oslo_config import cfg

    conf = cfg.ConfigOpts()
    conf.register_opt(cfg.BoolOpt("fuse_topk", default=True))
    conf([], default_config_files=[], default_config_dirs=[])
    return Subject("conf.fuse_topk", {"conf": conf}, ("OS_DEFAULT__FUSE_TOPK",))


CONTENDERS = (Contender("oslo.config option", _build, library="oslo_config"),)
