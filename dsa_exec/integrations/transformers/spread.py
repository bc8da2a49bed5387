"""A model whose layers are on several devices: moves what goes from one layer to the next.

accelerate places the weights. The hooks that it leaves for the same purpose replace the forward pass of every module,
projections within an attention included, of which ours takes the weights alone. So they are taken out again, and each
layer as a whole gets a hook.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.utils.weak import WeakTensorKeyDictionary
from transformers.utils.import_utils import is_accelerate_available

from dsa_exec.integrations.transformers.errors import NotSupported


def require_accelerate(argument: str, what_for: str) -> None:
    """Check that accelerate is installed, before transformers asks for it in the middle of loading.

    Args:
        argument: that needs it.
        what_for: what accelerate does, as a clause.

    Raises:
        NotSupported: it is not.
    """
    if not is_accelerate_available():
        raise NotSupported(f"{argument} needs accelerate 1.1 or newer, {what_for}: pip install 'dsa[spread]'")


def connect_layers(model: Any) -> None:
    """Let a spread model run without accelerate's hooks.

    Args:
        model: a causal language model, each layer of which is on one device.
    """
    if any(hasattr(module, "_hf_hook") for module in model.modules()):
        from accelerate.hooks import remove_hook_from_module

        remove_hook_from_module(model, recurse=True)
        for module in model.modules():
            forward = module.__dict__.get("forward")
            if getattr(forward, "__func__", None) is type(module).forward:
                del module.forward  # put back as an attribute, which would hide that of another class
    mover = Mover()
    decoder = model.model
    for module in (decoder.embed_tokens, decoder.rotary_emb, *decoder.layers, decoder.norm, model.lm_head):
        module.register_forward_pre_hook(mover, with_kwargs=True)


class Mover:
    """A forward pre-hook that moves a module's arguments to where its weights are.

    What several layers of a device are given is moved there once, and they are given the same tensor: what was worked
    out for it by one layer can be used by the next.
    """

    def __init__(self) -> None:
        self._moved: WeakTensorKeyDictionary = WeakTensorKeyDictionary()

    def __call__(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, Any]:
        """The arguments on the device of the module's first parameter or buffer."""
        home = next((it.device for it in (*module.parameters(), *module.buffers())), None)
        return (args, kwargs) if home is None else (self.moved(args, home), self.moved(kwargs, home))

    def moved(self, value: Any, device: torch.device) -> Any:
        """A value with all its tensors on a device; what is no tensor, tuple, list or dict stays as it is."""
        if isinstance(value, torch.Tensor):
            return value if value.device == device else self._copy(value, device)
        if type(value) in (tuple, list):
            return type(value)(self.moved(it, device) for it in value)
        if type(value) is dict:
            return {name: self.moved(it, device) for name, it in value.items()}
        return value

    def _copy(self, value: torch.Tensor, device: torch.device) -> torch.Tensor:
        copies = self._moved.setdefault(value, {})
        if device not in copies:
            copies[device] = value.to(device)
        copied: torch.Tensor = copies[device]
        return copied
