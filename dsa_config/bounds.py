"""The constraints of a field, in words."""

from __future__ import annotations

from collections.abc import Sequence

import annotated_types


def bounds_in_words(metadata: Sequence[object]) -> list[str]:
    """Each constraint as a clause: `0 <= x <= 9`, `a multiple of 64`, `at most 8 long`."""
    low = high = ""
    clauses = []
    for item in metadata:
        match item:
            case annotated_types.Ge(ge=bound):
                low = f"{bound} <= "
            case annotated_types.Gt(gt=bound):
                low = f"{bound} < "
            case annotated_types.Le(le=bound):
                high = f" <= {bound}"
            case annotated_types.Lt(lt=bound):
                high = f" < {bound}"
            case annotated_types.MultipleOf(multiple_of=step):
                clauses.append(f"a multiple of {step}")
            case annotated_types.MinLen(min_length=length):
                clauses.append(f"at least {length} long")
            case annotated_types.MaxLen(max_length=length):
                clauses.append(f"at most {length} long")
            case _:
                pattern = getattr(item, "pattern", None)
                if isinstance(pattern, str):
                    clauses.append(f"of the form {pattern}")
    return [f"{low}x{high}", *clauses] if low or high else clauses
