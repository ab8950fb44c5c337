"""Typed values: what fits a type, what does not, and what the message says of it. No wasmtime here."""

from __future__ import annotations

from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minilambda.errors import BadArguments
from minilambda.worker.values import arguments
from minilambda.worker.valuetypes import CORE_INTEGERS, INTEGERS, Signature, Type


def one(type_: Type) -> Signature:
    return Signature("f", (("x", type_),), ())


def from_text(type_: Type, text: str) -> Any:
    return arguments(one(type_), [text], None)[0]


def from_value(type_: Type, value: Any) -> Any:
    return arguments(one(type_), [], msgpack.packb([value]))[0]


def list_of(element: Type) -> Type:
    return Type("list", (("", element),))


STRING = Type("string")
OPTION = Type("option", (("some", STRING),))
RECORD = Type("record", (("name", STRING), ("tags", list_of(STRING))))
VARIANT = Type("variant", (("none", None), ("num", Type("s32"))))
RESULT = Type("result", (("ok", Type("u8")), ("err", None)))
ENUM = Type("enum", (("red", None), ("green", None)))
FLAGS = Type("flags", (("r", None), ("w", None)))


@pytest.mark.parametrize(("kind", "bounds"), [*INTEGERS.items(), *CORE_INTEGERS.items()])
def test_integers_take_their_range_and_no_more(kind: str, bounds: tuple[int, int]) -> None:
    low, high = bounds
    for number in (low, high, 0):
        assert from_text(Type(kind), str(number)) == from_value(Type(kind), number)
    for number in (low - 1, high + 1):
        with pytest.raises(BadArguments, match=f"the range is {low} to {high}"):
            from_text(Type(kind), str(number))


def test_core_integers_wrap_to_their_sign() -> None:
    assert from_text(Type("i32"), "4294967295") == -1
    assert from_text(Type("i32"), "0x7fffffff") == (1 << 31) - 1
    assert from_text(Type("i64"), str(1 << 63)) == -(1 << 63)


@pytest.mark.parametrize(
    ("type_", "text", "value"),
    [
        (Type("bool"), "true", True),
        (Type("bool"), "False", False),
        (Type("f64"), "1e3", 1000.0),
        (Type("f64"), "-inf", float("-inf")),
        (Type("char"), "ä", "ä"),
        (Type("char"), '"\\n"', "\n"),
        (STRING, "bare text", "bare text"),
        (STRING, '"quoted \\u00e9"', "quoted é"),
        (STRING, '"not closed', '"not closed'),
        (STRING, '""', ""),
        (list_of(Type("u8")), "[1, 2]", b"\x01\x02"),
        (list_of(STRING), '["a", "b"]', ["a", "b"]),
        (OPTION, "null", None),
        (OPTION, "bare", ("bare",)),
        (OPTION, '"null"', ("null",)),
        (RECORD, '{"name": "n", "tags": []}', ("n", [])),
        (Type("tuple", (("", Type("u8")), ("", STRING))), '[1, "x"]', (1, "x")),
        (VARIANT, "none", ("none", None)),
        (VARIANT, '{"num": 3}', ("num", 3)),
        (RESULT, '{"ok": 3}', ("ok", 3)),
        (RESULT, "err", ("err", None)),
        (ENUM, "red", "red"),
        (ENUM, '"red"', "red"),
        (FLAGS, "w,r", ["r", "w"]),
        (FLAGS, '["w"]', ["w"]),
        (FLAGS, "", []),
    ],
)
def test_text_is_read_by_the_parameters_type(type_: Type, text: str, value: Any) -> None:
    assert from_text(type_, text) == value


@pytest.mark.parametrize(
    ("type_", "value", "said"),
    [
        (Type("s32"), "5", "must be s32"),
        (Type("s32"), 5.0, "must be s32"),
        (Type("s32"), True, "must be s32"),
        (Type("f32"), "1", "must be f32"),
        (Type("bool"), 1, "must be bool"),
        (Type("char"), "ab", "must be char"),
        (Type("char"), "", "must be char"),
        (STRING, b"bytes", "must be string, got bytes of 5"),
        (list_of(Type("u8")), [256], "at [0] must be u8"),
        (RECORD, {"name": "n"}, "the field tags is missing"),
        (RECORD, {"name": "n", "tags": [], "more": 1}, "it has no field more"),
        (RECORD, {"name": "n", "tags": ["a", 2]}, "at tags[1] must be string"),
        (VARIANT, {"other": 1}, "give one of none, num"),
        (VARIANT, {"none": 1}, "the case none has no value"),
        (VARIANT, {"none": None, "num": 1}, "must be variant"),
        (RESULT, {"ok": 300}, "at ok must be u8"),
        (ENUM, "blue", "must be enum {red, green}"),
        (FLAGS, ["x"], "give some of r, w"),
        (OPTION, 5, "must be string"),
    ],
)
def test_what_does_not_fit_is_named_with_its_place(type_: Type, value: Any, said: str) -> None:
    with pytest.raises(BadArguments) as caught:
        from_value(type_, value)

    assert said in caught.value.message
    assert 'Parameter 1 ("x")' in caught.value.message


@pytest.mark.parametrize("text", ["", "nan", "1.5", "1e3", "9" * 5000, "--1", "0x", "½"])
def test_text_that_is_no_integer_is_refused(text: str) -> None:
    with pytest.raises(BadArguments) as caught:
        from_text(Type("s32"), text)

    assert len(caught.value.message) < 500


@pytest.mark.parametrize("text", ["[", "[1,]", "[" * 100_000, "{'a': 1}"])
def test_text_that_is_not_json_is_refused(text: str) -> None:
    with pytest.raises(BadArguments, match="it is not JSON"):
        from_text(list_of(Type("u8")), text)


def test_options_of_options_tell_their_levels_apart() -> None:
    nested = Type("option", (("some", Type("option", (("some", Type("u8")),))),))

    assert from_value(nested, None) is None
    assert from_value(nested, {"some": None}) == (None,)
    assert from_value(nested, {"some": 3}) == ((3,),)
    with pytest.raises(BadArguments):
        from_value(nested, 3)


def test_types_and_signatures_are_written_as_in_wit() -> None:
    signature = Signature("go", (("a", OPTION), ("b", RESULT)), (list_of(RECORD),))

    assert str(signature) == ("go(a: option<string>, b: result<u8>) -> list<record {name: string, tags: list<string>}>")
    assert str(Type("result", (("ok", None), ("err", STRING)))) == "result<_, string>"
    assert str(Type("result", (("ok", None), ("err", None)))) == "result"
    assert str(VARIANT) == "variant {none, num(s32)}"
    assert str(Signature("sum", (("", Type("i32")),) * 2, (Type("i32"), Type("f64")))) == "sum(i32, i32) -> (i32, f64)"


def test_a_count_that_is_wrong_names_the_signature() -> None:
    with pytest.raises(BadArguments, match=r"f\(x: string\) takes 1 parameter, 2 given"):
        arguments(one(STRING), ["a", "b"], None)


def test_a_type_that_cannot_cross_is_refused_wherever_it_is() -> None:
    with pytest.raises(BadArguments, match="values of own can't be passed"):
        arguments(Signature("f", (), (list_of(Type("own")),)), [], None)


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers(-(1 << 63), (1 << 64) - 1) | st.floats() | st.text() | st.binary(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
TYPES = [Type(kind) for kind in (*INTEGERS, *CORE_INTEGERS, "f32", "bool", "char")]
TYPES += [STRING, OPTION, RECORD, VARIANT, RESULT, ENUM, FLAGS, list_of(Type("u8")), list_of(RECORD)]


@given(st.sampled_from(TYPES), ANYTHING)
def test_any_value_is_taken_or_refused_with_a_sentence(type_: Type, value: Any) -> None:
    try:
        from_value(type_, value)
    except BadArguments as refused:
        assert 0 < len(refused.message) < 1000


@given(st.sampled_from(TYPES), st.text())
def test_any_text_is_taken_or_refused_with_a_sentence(type_: Type, text: str) -> None:
    try:
        from_text(type_, text)
    except BadArguments as refused:
        assert 0 < len(refused.message) < 1000


@given(st.binary())
def test_any_bytes_as_values_are_taken_or_refused(packed: bytes) -> None:
    try:
        arguments(one(STRING), [], packed)
    except BadArguments as refused:
        assert refused.message
