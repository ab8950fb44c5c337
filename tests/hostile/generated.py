"""Hostile modules that would be huge as text: each is made by a few lines, as bytes."""

from __future__ import annotations

from collections.abc import Callable

from tests import wat

HEADER = b"\0asm\x01\0\0\0"
VOID = b"\x01\x60\x00\x00"  # one type: a function of nothing
START = b"\x01\x06_start\x00"  # the export of a function, its index to follow


def number(value: int) -> bytes:
    """An unsigned LEB128."""
    out = bytearray()
    while True:
        out.append(value & 0x7F | (0x80 if value > 0x7F else 0))
        value >>= 7
        if not value:
            return bytes(out)


def module(*sections: tuple[int, bytes]) -> bytes:
    return HEADER + b"".join(bytes([kind]) + number(len(data)) + data for kind, data in sections)


def body(code: bytes, local: bytes = b"\x00") -> bytes:
    """A function of the code section; its end is added."""
    whole = local + code + b"\x0b"
    return number(len(whole)) + whole


def functions(bodies: list[bytes]) -> bytes:
    """A module of functions of nothing, the last of which is ``_start``."""
    count = number(len(bodies))
    start = START + number(len(bodies) - 1)
    uses = (3, count + bytes(len(bodies)))
    return module((1, VOID), uses, (7, start), (10, count + b"".join(bodies)))


def br_tables(count: int = 60, targets: int = 65_000) -> bytes:
    """Functions that each branch to one of very many places."""
    table = b"\x02\x40\x41\x00\x0e" + number(targets) + b"\x00" * (targets + 1) + b"\x0b"
    return functions([*[body(table)] * count, body(b"")])


def br_table_of_blocks(depth: int = 4_000) -> bytes:
    """One branch out of thousands of blocks, to each of them."""
    labels = b"".join(number(label) for label in range(depth))
    table = b"\x41\x00\x0e" + number(depth - 1) + labels
    return functions([body(b"\x02\x40" * depth + table + b"\x0b" * depth)])


def nested_blocks(depth: int = 100_000) -> bytes:
    return functions([body(b"\x02\x40" * depth + b"\x0b" * depth)])


def nested_ifs(depth: int = 10_000) -> bytes:
    return functions([body(b"\x41\x00\x04\x40" * depth + b"\x05\x0b" * depth)])


def huge_locals(count: int = 49_000) -> bytes:
    return functions([body(b"", b"\x01" + number(count) + b"\x7e")])


def too_many_locals() -> bytes:
    return huge_locals(2**32 - 1)


def live_values(count: int = 30_000) -> bytes:
    """As many values at once on the operand stack: what a register allocator likes least."""
    code = b"\x20\x00\x20\x00\x7e" * count + b"\x7c" * (count - 1) + b"\x1a"  # products, then their sum
    return functions([body(code, b"\x01\x01\x7e")])


def one_large_function(steps: int = 100_000) -> bytes:
    """One function of 700 KB: a long chain of arithmetic on one local."""
    step = b"\x20\x00\x41\x07\x6a\x21\x00"
    return functions([body(step * steps, b"\x01\x01\x7f")])


def many_functions(count: int = 600_000) -> bytes:
    return functions([body(b"")] * count)


def many_types(count: int = 100_000) -> bytes:
    types = number(count) + b"".join(b"\x60\x00\x01" + bytes([0x7C + at % 4]) for at in range(count))
    return module((1, types))


def many_exports(count: int = 10_000) -> bytes:
    names = b"".join(number(len(name)) + name + b"\x00\x00" for name in (b"e%d" % at for at in range(count)))
    exports = number(count + 1) + START[1:] + b"\x00" + names
    return module((1, VOID), (3, b"\x01\x00"), (7, exports), (10, b"\x01" + body(b"")))


def many_imports(count: int = 20_000) -> bytes:
    names = (b"i%d" % at for at in range(count))
    imports = b"".join(b"\x03env" + number(len(name)) + name + b"\x00\x00" for name in names)
    return module((1, VOID), (2, number(count) + imports))


def with_data(data: bytes) -> bytes:
    """A command with one page of memory and a data section."""
    rest = (7, START + b"\x00"), (10, b"\x01" + body(b"")), (11, data)
    return module((1, VOID), (3, b"\x01\x00"), (5, b"\x01\x00\x01"), *rest)


def many_data_segments(count: int = 90_000) -> bytes:
    return with_data(number(count) + b"\x00\x41\x00\x0b\x01x" * count)


def giant_data_segment(size: int = 24 << 20) -> bytes:
    """More data than its memory of one page has room for."""
    return with_data(b"\x01\x00\x41\x00\x0b" + number(size) + bytes(size))


def length_beyond_the_end() -> bytes:
    return HEADER + b"\x0a\xff\xff\xff\xff\x0f\x01"


def count_beyond_the_end() -> bytes:
    return module((1, b"\xff\xff\xff\xff\x0f\x60"))


def section_twice() -> bytes:
    return module((1, VOID), (1, VOID))


def import_no_utf8() -> bytes:
    return module((1, VOID), (2, b"\x01\x03\xff\xfe\xc3\x01x\x00\x00"))


def export_no_utf8() -> bytes:
    return module((1, VOID), (3, b"\x01\x00"), (7, b"\x01\x03\xff\xfe\xc3\x00\x00"), (10, b"\x01" + body(b"")))


def names_no_utf8() -> bytes:
    """A name section that is garbage is a custom section, which means nothing."""
    return functions([body(b"")]) + b"\x00\x0d\x04name\x01\x06\x01\x00\x03\xff\xfe\xc3"


def deep_component_type(depth: int) -> bytes:
    """A function that returns a list of lists of lists …"""
    types = "\n".join(f"(type $t{at + 1} (list $t{at}))" for at in range(depth))
    return wat.wasm(
        f"""(component (type $t0 (list u8)) {types}
  (core module $m (memory (export "memory") 1) (func (export "make") (result i32) (i32.const 0)))
  (core instance $i (instantiate $m))
  (func (export "make") (result $t{depth}) (canon lift (core func $i "make") (memory (core memory $i "memory")))))"""
    )


def deep_component() -> bytes:
    return deep_component_type(90)


def deeper_component() -> bytes:
    return deep_component_type(2_000)


def nested_components(depth: int = 60) -> bytes:
    return wat.wasm("(component " * depth + ")" * depth)


def wide_component(fields: int = 900) -> bytes:
    """A record with very many fields."""
    record = " ".join(f'(field "f{at}" u8)' for at in range(fields))
    return wat.wasm(
        f"""(component (type $r' (record {record})) (export $r "r" (type $r'))
  (core module $m (memory (export "memory") 1) (func (export "make") (result i32) (i32.const 0)))
  (core instance $i (instantiate $m))
  (func (export "make") (result $r) (canon lift (core func $i "make") (memory (core memory $i "memory")))))"""
    )


MADE: tuple[Callable[[], bytes], ...] = (
    br_tables,
    br_table_of_blocks,
    nested_blocks,
    nested_ifs,
    huge_locals,
    too_many_locals,
    live_values,
    one_large_function,
    many_functions,
    many_types,
    many_exports,
    many_imports,
    many_data_segments,
    giant_data_segment,
    length_beyond_the_end,
    count_beyond_the_end,
    section_twice,
    import_no_utf8,
    export_no_utf8,
    names_no_utf8,
    deep_component,
    deeper_component,
    nested_components,
    wide_component,
)
