"""The code that each hostile module must end with."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests import wat
from tests.hostile import generated

FOLDER = Path(__file__).parent / "modules"
LIMITS: dict[str, Any] = {"timeout": 0.4, "memory": "64M", "output_limit": 100_000}
PATIENT: dict[str, Any] = {"timeout": 20}  # where the machine's speed must not decide


@dataclass(frozen=True)
class Ends:
    """How a module ends."""

    code: str | None  # of the failure; None: it completes
    says: str = ""  # what the message must have
    exit_code: int | None = 0  # of one that completes
    winch: str | None = ""  # the code where there is no compiler but Winch; "": the same
    options: dict[str, Any] = field(default_factory=dict)


def completes(exit_code: int | None = 0, **rest: Any) -> Ends:
    return Ends(None, exit_code=exit_code, options=PATIENT, **rest)


MAKE = {"invoke": "make"}
NOT_WINCH = "invalid_module"  # what Winch does not compile
LATE = Ends("deadline_exceeded", "0.4 s")
NO_MEMORY = Ends("out_of_memory")
INVALID = Ends("invalid_module", "does not compile", options=PATIENT)
COMPILED = completes()

EXPECTED: dict[str, Ends] = {
    # memory
    "grow_forever": LATE,
    "grow_and_touch": Ends("trap", "near the limit"),
    "memory_of_4_gib": NO_MEMORY,
    "memory_beyond_4_gib": INVALID,
    "memory64_of_1_tib": NO_MEMORY,
    "memory64_grow": COMPILED,
    "memories_within_the_limit_each": Ends("trap", "near the limit"),
    "table_of_10_million": Ends("out_of_memory", "table"),
    "table_grow": Ends("trap", "unreachable"),
    "gc_heap": Ends("out_of_memory", winch=NOT_WINCH),
    "gc_list_without_end": Ends("out_of_memory", winch=NOT_WINCH, options={"timeout": 10}),
    "many_data_segments": COMPILED,
    "giant_data_segment": Ends("trap", "out of bounds"),
    "data_outside_memory": Ends("trap", "out of bounds"),
    "elements_outside_table": Ends("trap", "out of bounds"),
    # stack
    "recursion": Ends("stack_overflow", options=PATIENT),
    "recursion_with_large_frames": Ends("stack_overflow", options=PATIENT),
    "recursion_through_a_table": Ends("stack_overflow", options=PATIENT),
    "tail_calls": completes(winch=NOT_WINCH),
    "tail_calls_without_end": Ends("deadline_exceeded", winch=NOT_WINCH),
    # time
    "spinning": LATE,
    "start_never_returns": LATE,
    "start_sleeps": LATE,
    "start_traps": Ends("trap", "unreachable"),
    "sleeping": LATE,
    "subscriptions_beyond_memory": COMPILED,  # it is told of the error, which it ignores
    "two_million_subscriptions": Ends("trap", "subscribe_duration", options={"memory": "512M", "timeout": 30}),
    "reads_stdin_forever": LATE,
    "random_without_end": LATE,
    "fills_and_copies": LATE,
    # output
    "floods_stdout": Ends("output_limit", "100000 bytes", options=PATIENT),
    "floods_stderr": Ends("output_limit", "100000 bytes", options=PATIENT),
    "writes_400000_vectors": LATE,
    "writes_from_beyond_memory": completes(48),  # WASI's overflow
    "prints_no_utf8": COMPILED,
    # ends
    "exits_with_minus_1": completes(2**32 - 1),
    "exits_with_minus_2147483648": completes(2**31),
    "exits_with_2147483647": completes(2**31 - 1),
    "exits_with_256": completes(256),
    "exits_with_126": completes(126),
    "start_takes_a_parameter": Ends("unknown_export", "_start"),
    "start_is_a_memory": Ends("unknown_export", "_start"),
    "no_memory_for_wasi": Ends("trap", "memory"),
    "wasi_of_another_type": Ends("unknown_import", "fd_write"),
    # names
    "imports_with_odd_names": Ends("unknown_import"),
    "traps_in_an_odd_function": Ends("trap", "unreachable"),
    "import_no_utf8": INVALID,
    "export_no_utf8": INVALID,
    "names_no_utf8": COMPILED,
    "many_exports": COMPILED,
    "many_imports": Ends("unknown_import", options=PATIENT),
    # what the compilers get
    "br_tables": COMPILED,
    "br_table_of_blocks": COMPILED,
    "nested_blocks": COMPILED,
    "nested_ifs": COMPILED,
    "huge_locals": COMPILED,
    "live_values": COMPILED,
    "one_large_function": COMPILED,
    "many_functions": Ends("compile_limit"),
    "many_types": Ends("unknown_export", options=PATIENT),
    "too_many_locals": INVALID,
    "length_beyond_the_end": INVALID,
    "count_beyond_the_end": INVALID,
    "section_twice": INVALID,
    # features: those of wasmtime but for threads, see ``toolchain.FEATURES``
    "shared_memory": INVALID,
    "atomics": INVALID,
    "exception_thrown": Ends("trap", "exception", winch=NOT_WINCH),
    "exception_caught": completes(winch=NOT_WINCH),
    "gc_types": completes(winch=NOT_WINCH),
    "simd": completes(winch=NOT_WINCH),
    "multi_memory": COMPILED,
    # components
    "component_list_too_long": Ends("trap", "out of bounds", options=MAKE),
    "component_string_no_utf8": Ends("trap", "utf-8", options=MAKE),
    "component_huge_string": Ends("output_limit", "100000 bytes", options=MAKE | PATIENT),
    "component_many_empty_tuples": Ends("trap", "out of bounds", options=MAKE),
    "component_resource": Ends("bad_arguments", "own", options=MAKE),
    "component_handle_of_nobody": Ends("bad_arguments", "own", options=MAKE),
    "component_realloc_lies": Ends("trap", "realloc", options=MAKE | {"args": ['"hey"']}),
    "component_spinning_start": Ends("deadline_exceeded", "0.4 s", options=MAKE),
    "deep_component": completes(None),
    "deeper_component": INVALID,
    "nested_components": Ends("unknown_export", options=MAKE),
    "wide_component": completes(None),
}
"""By the name of the file, or of the function in `generated.py`."""


def modules() -> dict[str, bytes]:
    """Every hostile module by its name."""
    found = {path.stem: wat.wasm(path.read_text()) for path in sorted(FOLDER.glob("*.wat"))}
    return found | {make.__name__: make() for make in generated.MADE}


def options_of(name: str) -> dict[str, Any]:
    """How a module is run."""
    return {**LIMITS, **(MAKE if name.endswith("_component") else {}), **EXPECTED[name].options}
