"""What a guest may import: WASI, nothing else. And the sentence for what it may not."""

from __future__ import annotations

from typing import Final

import wasmtime
import wasmtime.component as wc

from minilambda.errors import UnknownImport
from minilambda.worker.engine import kind_of
from minilambda.worker.outcome import GuestExit
from minilambda.worker.toolchain import one_line

PREVIEW1: Final = "wasi_snapshot_preview1"

WASI_0_2: Final = frozenset(
    f"wasi:{name}"
    for name in (
        "cli/environment cli/exit cli/stderr cli/stdin cli/stdout cli/terminal-input cli/terminal-output "
        "cli/terminal-stderr cli/terminal-stdin cli/terminal-stdout clocks/monotonic-clock clocks/wall-clock "
        "filesystem/preopens filesystem/types io/error io/poll io/streams random/insecure random/insecure-seed "
        "random/random sockets/instance-network sockets/ip-name-lookup sockets/network sockets/tcp "
        "sockets/tcp-create-socket sockets/udp sockets/udp-create-socket"
    ).split()
)
"""The interfaces of WASI 0.2 that wasmtime offers to a component. What they reach is another matter: nothing."""

_OFFER_CORE: Final = f"minilambda offers WASI preview 1 ({PREVIEW1})"
_OFFER_COMPONENT: Final = "minilambda offers WASI 0.2 (wasi:cli, clocks, filesystem, io, random, sockets)"
_NAMED: Final = 12  # imports named in one message
_NAME_LENGTH: Final = 120  # characters


def core_linker(engine: wasmtime.Engine) -> wasmtime.Linker:
    """A linker that offers WASI preview 1, its ``proc_exit`` ours: wasmtime's loses exit codes above 125."""
    linker = wasmtime.Linker(engine)
    linker.allow_shadowing = True
    linker.define_wasi()
    linker.define_func(PREVIEW1, "proc_exit", wasmtime.FuncType([wasmtime.ValType.i32()], []), _proc_exit)
    return linker


def _proc_exit(code: int) -> None:
    raise GuestExit(code & 0xFFFFFFFF)


def component_linker(engine: wasmtime.Engine) -> wc.Linker:
    """A linker that offers WASI 0.2."""
    linker = wc.Linker(engine)
    linker.allow_shadowing = True
    linker.add_wasip2()
    return linker


def link_core(linker: wasmtime.Linker, module: wasmtime.Module, trap_unknown: bool) -> wasmtime.InstancePre:
    """Resolve a module's imports once for all runs. Raises UnknownImport, which names what is missing.

    With ``trap_unknown`` the linker must be of this module only: unknown functions become traps in it.
    """
    try:
        if trap_unknown:
            linker.define_unknown_imports_as_traps(module)
        return linker.instantiate_pre(module)
    except wasmtime.WasmtimeError as error:
        raise _core_fault(linker, module, trap_unknown, str(error)) from None


def _core_fault(linker: wasmtime.Linker, module: wasmtime.Module, trap_unknown: bool, text: str) -> UnknownImport:
    with wasmtime.Store(linker.engine) as store:
        missing = []
        for item in module.imports:
            try:
                linker.get(store, item.module, item.name or "")
            except wasmtime.WasmtimeError:
                missing.append(f"{_name(item.module)}.{_name(item.name or '')} ({_core_type(item.type)})")
    if not missing:
        return UnknownImport(f"An import has another type than what is offered: {_reason(text)}.")
    hint = "; only functions can be left to trap" if trap_unknown else _hint(all("(func" in m for m in missing))
    return UnknownImport(f"The module imports {_listed(missing)}; {_OFFER_CORE}{hint}.")


def _hint(functions: bool) -> str:
    return (
        ', and with unknown imports set to "trap" functions may be missing that are never called' if functions else ""
    )


def _core_type(type_: object) -> str:
    if isinstance(type_, wasmtime.FuncType):
        params, results = (", ".join(map(kind_of, types)) for types in (type_.params, type_.results))
        return one_line(f"func({params}) -> ({results})", _NAME_LENGTH)
    return type(type_).__name__.removesuffix("Type").lower()


def unknown_in_component(component_type: wc.ComponentType, engine: wasmtime.Engine) -> list[str]:
    """The imports that are not of WASI 0.2, each with its kind; functions that an interface asks for are named."""
    unknown = []
    for name, extern in component_type.imports(engine).items():
        interface, _, version = name.partition("@")
        if interface in WASI_0_2 and (version == "0.2" or version.startswith("0.2.")):
            continue
        unknown.append(f"{_name(name)} ({_component_kind(extern, engine)})")
    return unknown


def _component_kind(extern: wc._types.ComponentExtern, engine: wasmtime.Engine) -> str:
    try:
        item = extern.ty
    except TypeError:
        return "item"
    if isinstance(item, wc.ComponentInstanceType):
        names = list(item.exports(engine))
        return one_line("instance with " + ", ".join(names), _NAME_LENGTH) if names else "instance"
    return "func" if isinstance(item, wc.FuncType) else type(item).__name__.removesuffix("Type").lower()


def component_fault(unknown: list[str], text: str) -> UnknownImport:
    """The error for a component that does not link; ``text`` is wasmtime's reason."""
    if not unknown:
        return UnknownImport(f"The component's imports do not fit: {_reason(text)}; {_OFFER_COMPONENT}.")
    return UnknownImport(f"The component imports {_listed(unknown)}; {_OFFER_COMPONENT}{_hint(True)}.")


def _reason(text: str) -> str:
    return one_line(text.strip().replace("\n\nCaused by:\n", ": "), 300)


def _name(text: str) -> str:
    return one_line(text, _NAME_LENGTH)


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more
