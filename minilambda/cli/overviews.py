"""What the commands print of a cluster as a whole."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from minilambda.cli.render import printable, size, table

if TYPE_CHECKING:
    from minilambda.client.functions import FunctionInfo
    from minilambda.client.listings import ClientInfo, Overview


def clients_table(clients: Sequence[ClientInfo]) -> None:
    rows = [
        [
            each.name,
            each.principal,
            str(each.queued),
            str(each.running),
            str(each.completed),
            str(each.failed),
            str(each.cancelled),
            f"{each.seen_ms / 1000:.0f} s ago",
        ]
        for each in clients
    ]
    head = ["name", "principal", "queued", "running", "completed", "failed", "cancelled", "seen"]
    table(head, rows, "Nobody has had a job yet.")


def functions_table(functions: Sequence[FunctionInfo]) -> None:
    rows = [
        [
            each.function,
            str(each.version),
            ", ".join(each.aliases),
            f"{duration(each.age_ms / 1000)} ago",
            each.invoke,
            "shared" if each.shared else "",
            each.module,
        ]
        for each in functions
    ]
    head = ["function", "version", "aliases", "made", "invoke", "", "module"]
    table(head, rows, "There are no such functions.")


def show(overview: Overview) -> None:
    """How a broker does, in some lines."""
    o = overview
    print(f"{printable(o.broker)}, up {duration(o.up_ms / 1000)}")
    print(f"workers   {o.workers} with {o.slots} slots")
    print(f"jobs      {o.queued} queued, {o.running} at workers, {o.kept} kept, {o.accepted} accepted so far")
    print(f"ended     {_counts(o.outcomes)}")
    print(f"rejected  {_counts(o.rejected)}")
    print(f"store     {o.modules} modules and files, {size(o.store_bytes)}")
    if o.tiers:
        print()
        rows = [
            [each.tier, str(each.count), *(f"{ms:.2f} ms" for ms in (each.p50_ms, each.p90_ms, each.p99_ms))]
            for each in o.tiers
        ]
        table(["tier", "last jobs", "p50", "p90", "p99"], rows, "")


def duration(seconds: float) -> str:
    """A time in its largest two units."""
    whole = int(seconds)
    days, hours, minutes = whole // 86400, whole // 3600 % 24, whole // 60 % 60
    if days:
        return f"{days} d {hours} h"
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {whole % 60} s" if minutes else f"{whole} s"


def _counts(counts: dict[str, int]) -> str:
    shown = sorted(((count, name) for name, count in counts.items() if count), reverse=True)
    return ", ".join(f"{count} {printable(name)}" for count, name in shown) or "none"
