"""What must hold between a worker's jobs, modules and slots after every step. Tests ask for it; nothing repairs it."""

from __future__ import annotations

from collections.abc import Set
from typing import TYPE_CHECKING

from minilambda.fields import MAX_FRAME
from minilambda.messages import JobRef, body_handle
from minilambda.worker.jobs import InvariantError
from minilambda.worker.needs import FILES

if TYPE_CHECKING:
    from minilambda.worker.core import Core
    from minilambda.worker.execution import Execution
    from minilambda.worker.module import Module

SLOT_STATES = frozenset({"down", "starting", "idle", "busy", "dying", "unused"})


def check(core: Core) -> None:
    """Raises ``InvariantError`` when the state of a worker contradicts itself."""
    execution = core.execution
    both = [ref for ref in execution.jobs if ref in core.finished]
    if both:
        raise InvariantError(f"{both[0]} is finished and still held.")
    if execution.open and not core.link.session:
        raise InvariantError("Jobs may start only while there is a session.")
    if core.due > core.earliest():
        raise InvariantError(f"The next deadline is {core.due}, and something is due at {core.earliest()}.")
    execution.live.check(execution.jobs)
    _check_jobs(execution)
    _check_slots(execution)
    _check_modules(execution)
    _check_transfers(execution)
    _check_trees(execution)


def _check_jobs(execution: Execution) -> None:
    running = {slot.job.ref for slot in execution.slots.busy if slot.job}
    if not running <= execution.jobs.keys() or not execution.ready.keys() <= execution.jobs.keys():
        raise InvariantError("A slot or the ready queue has a job that the worker does not hold.")
    for ref, job in execution.jobs.items():
        if job.phase == "done" or ref != job.ref:
            raise InvariantError(f"{ref} is done and still held.")
        if (job.phase == "running") != (ref in running):
            raise InvariantError(f"{ref} is {job.phase}, and the slots say otherwise.")
        if (job.phase == "ready") != (ref in execution.ready):
            raise InvariantError(f"{ref} is {job.phase}, and the ready queue says otherwise.")
        if (job.phase == "fetching") != bool(job.missing):
            raise InvariantError(f"{ref} is {job.phase}, and lacks {sorted(job.missing)}.")
        module = execution.modules.by_digest.get(job.spec.module)
        waits = module is not None and ref in module.waiting
        has_it = module is not None and ref in module.users
        if job.phase != "running" and (waits == has_it or (job.phase == "ready" and waits)):
            raise InvariantError(f"{ref} is {job.phase}, and its module knows nothing of it.")
        if job.phase == "preparing" and has_it:
            raise InvariantError(f"{ref} waits for a module that it has.")


def _check_slots(execution: Execution) -> None:
    for slot in execution.slots.all:
        if slot.state not in SLOT_STATES or (slot.state == "busy" and slot.job is None):
            raise InvariantError(f"Slot {slot.index} is {slot.state} with {slot.job}.")
        if slot.job is not None and slot.state not in ("busy", "dying"):
            raise InvariantError(f"Slot {slot.index} is {slot.state} and runs {slot.job.ref}.")
        if slot.job is not None and slot.principal != slot.job.ref.principal:
            raise InvariantError(f"Slot {slot.index} serves {slot.principal} and runs {slot.job.ref}.")
        if (slot.state == "idle") != (slot.index in execution.slots.idle) or (slot.job is None and not slot.told):
            raise InvariantError(f"Slot {slot.index} is {slot.state}, and the idle ones are {[*execution.slots.idle]}.")
        if (slot.kill_at is not None) != (slot.state == "busy") or (slot.spawn_at is not None) != (
            slot.state == "down"
        ):
            raise InvariantError(f"Slot {slot.index} is {slot.state}, and its times say otherwise.")


def _check_modules(execution: Execution) -> None:
    modules = execution.modules
    for module in modules.by_digest.values():
        _check_module(module, execution.jobs.keys())
    states = {digest: module.state for digest, module in modules.by_digest.items()}
    queued = sorted(module.digest for module in modules.compilations.queue)
    if queued != sorted(digest for digest, state in states.items() if state == "queued"):
        raise InvariantError("The queue for the compiler and the modules disagree.")
    compiling = {digest for digest, state in states.items() if state in ("compiling", "aborting")}
    if modules.compilations.running.keys() != compiling:
        raise InvariantError("The compilers and the modules disagree.")


def _check_module(module: Module, held: Set[JobRef]) -> None:
    ready, useless = module.state == "ready", not (module.waiting or module.hand)
    if (ready and module.waiting) or (useless and module.state != "aborting"):
        raise InvariantError(f"{module.digest} is {module.state}, and {len(module.waiting)} jobs wait for it.")
    if (module.users or ready) and not module.hand:
        raise InvariantError(f"{module.digest} is {module.state} and has users, but no artifact is in hand.")
    if not (module.waiting.keys() | module.users.keys()) <= held:
        raise InvariantError(f"{module.digest} serves jobs that the worker does not hold.")


def _check_transfers(execution: Execution) -> None:
    puller = execution.puller
    if not 0 <= puller.outstanding < puller.window + MAX_FRAME:
        raise InvariantError(f"{puller.outstanding} bytes are outstanding.")
    fetched = {module.digest for module in execution.modules.by_digest.values() if module.state == "fetching"}
    missing = {body_handle(job.ref, name) for job in execution.jobs.values() for name in job.missing if name != FILES}
    if fetched | missing != set(puller):
        raise InvariantError(f"The transfers and what is missing disagree: {(fetched | missing) ^ set(puller)}.")


def _check_trees(execution: Execution) -> None:
    trees = execution.needs.trees
    pulls = trees.pulls
    if not 0 <= pulls.outstanding < pulls.window + MAX_FRAME or not pulls.pulls.keys() <= trees.wanted.keys():
        raise InvariantError(f"{pulls.outstanding} bytes of files are outstanding, of {sorted(pulls.pulls)}.")
    for digest, wanting in trees.wanted.items():
        if not wanting or any(tree.state != "fetching" or digest not in tree.missing for tree in wanting):
            raise InvariantError(f"{digest} is fetched for nobody.")
    for key, tree in trees.by_key.items():
        idle = tree.state == "fetching" and not (tree.missing and tree.waiting)
        if idle or (tree.state == "ready" and tree.waiting):
            raise InvariantError(f"The tree {key} is {tree.state}, and {len(tree.waiting)} jobs wait for it.")
        if not tree.missing <= trees.wanted.keys() or (tree.users and tree.state != "ready"):
            raise InvariantError(f"The tree {key} is {tree.state}, and lacks what nobody fetches.")
    for ref, job in execution.jobs.items():
        holding = [tree for tree in trees.by_key.values() if ref in tree.waiting or ref in tree.users]
        if len(holding) != bool(job.tree) or (job.tree and (ref in holding[0].waiting) != (FILES in job.missing)):
            raise InvariantError(f"{ref} lacks {sorted(job.missing)}, and its files know nothing of it.")
