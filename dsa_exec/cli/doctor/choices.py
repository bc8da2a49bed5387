"""What would run the typical calls of every op, why, and what would change it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from dsa_config import DSASettings, SettingError
from dsa_config.declared import settings_of
from dsa_config.explain import Explanation
from dsa_exec.cli.doctor.other_backends import other_backends, told
from dsa_exec.cli.doctor.report import OpChoice, Trouble, TypicalCall
from dsa_exec.cli.doctor.typical_calls import TypicalWork
from dsa_exec.core.errors import DsaError, UnsupportedCall
from dsa_exec.core.hardware import Capabilities
from dsa_exec.dispatch.registry import op_names
from dsa_exec.dispatch.select import weigh


def op_choices(
    hw: Capabilities,
    work: Iterable[TypicalWork],
    explanations: Mapping[str, Explanation],
    unreadable: Mapping[str, SettingError],
) -> tuple[list[OpChoice], list[Trouble]]:
    """What would run each op on some hardware, and the calls that would fail.

    To be called within `assumed(hw)`, and where settings that cannot be read are overridden.

    Args:
        hw: the hardware.
        work: typical calls of all ops.
        explanations: of the settings that can be read.
        unreadable: why the others cannot be.
    """
    work = list(work)
    ops: list[OpChoice] = []
    troubles: list[Trouble] = []
    for op in op_names():
        setting = settings_of(DSASettings)[f"{op}_backend"]
        found = explanations.get(setting.name)
        # What the process itself has set is stronger than any variable.
        key = setting.name if found is not None and found.source in ("set", "override") else setting.variable
        asked = [_asked(op, key, it, hw) for it in work if it.op == op]
        chosen = OpChoice(
            op=op,
            setting=setting.name,
            variable=setting.variable,
            choice=None if found is None else str(found.value),
            source=None if found is None else found.source,
            origin=str(unreadable[setting.name]) if found is None else found.origin,
            calls=_merged([call for call, _ in asked]),
        )
        ops.append(chosen)
        kinds = {call.why: kind for call, kind in asked if kind is not None}
        troubles += [_would_fail(chosen, call, kinds[call.why]) for call in chosen.calls if call.backend is None]
        if not kinds:
            troubles += _broken(chosen)
    return ops, troubles


def _asked(op: str, key: str, work: TypicalWork, hw: Capabilities) -> tuple[TypicalCall, str | None]:
    """What would run a call; and where it would fail, the kind of trouble."""
    chosen, kind = None, None
    try:
        call = work.make()
    except DsaError as error:
        return TypicalCall(work=[work.words], backend=None, why=str(error), others=[]), "no-cache"
    except Exception as error:  # a defect must not keep the rest from being told; here, of the typical calls
        return TypicalCall(work=[work.words], backend=None, why=told(error), others=[]), "not-asked"
    try:
        decision = weigh(op, call, hw)
        chosen, why = decision.backend.name, decision.why
    except UnsupportedCall as error:
        why, kind = str(error), "unsupported-call"
    except Exception as error:  # here, of a backend
        why, kind = told(error), "broken-backend"
    return TypicalCall(
        work=[work.words], backend=chosen, why=why, others=other_backends(op, key, call, hw, chosen)
    ), kind


def _merged(calls: Sequence[TypicalCall]) -> list[TypicalCall]:
    """Calls that are decided alike, as one."""
    merged: list[TypicalCall] = []
    for call in calls:
        for place, it in enumerate(merged):
            if it.model_copy(update={"work": call.work}) == call:
                merged[place] = it.model_copy(update={"work": [*it.work, *call.work]})
                break
        else:
            merged.append(call)
    return merged


def _would_fail(op: OpChoice, call: TypicalCall, kind: str) -> Trouble:
    could = [it.setting for it in call.others if it.setting is not None]
    return Trouble(
        severity="error",
        kind=kind,
        name=op.op,
        message=f"{op.op} would fail in {', '.join(call.work)}: {call.why}",
        origin=op.origin,
        suggestion=f"{' or '.join(could)} would run it" if could else None,
    )


def _broken(op: OpChoice) -> list[Trouble]:
    """Backends that could not be asked, where another one runs the calls all the same."""
    found = {it.backend: it.reason for call in op.calls for it in call.others if it.verdict == "fails"}
    return [
        Trouble(
            severity="warning",
            kind="broken-backend",
            name=op.op,
            message=f"{op.op}: the backend {name} could not be asked: {reason}",
            origin=None,
            suggestion=None,
        )
        for name, reason in found.items()
    ]
