"""What must hold between the parts of the broker after every step. Looks at everything: for tests."""

from __future__ import annotations

from typing import TYPE_CHECKING

from minilambda.broker.contents import files_of
from minilambda.broker.jobs import KEEP_INPUT, InvariantError, Job

if TYPE_CHECKING:
    from minilambda.broker.core import Core


def check_core(core: Core) -> None:
    """Raise ``InvariantError`` where the state of a broker contradicts itself."""
    core.queue.check()
    core.results.check()
    core.modules.check()
    core.scheduler.check(core.workers.sessions)
    core.streams.check()
    for key, job in core.jobs.items():
        if job.key != key:
            raise InvariantError(job.tell("it is listed under another key"))
        _check_job(core, job)
    _check_counts(core)
    _check_workers(core)


def _check_job(core: Core, job: Job) -> None:
    queued = job.state == "queued"
    if queued != (job.entry is not None):
        raise InvariantError(job.tell("its state and its place in the queue disagree"))
    if (job.state in ("assigned", "running")) != (job.worker is not None):
        raise InvariantError(job.tell("its state and its worker disagree"))
    if job.ended != (job.result is not None):
        raise InvariantError(job.tell("its state and its result disagree"))
    kept = (job.stdin or job.values) and job.code not in KEEP_INPUT
    if job.ended and (job.waiters or job.recalled or kept):
        raise InvariantError(job.tell("it has ended and something is left over"))
    worker = job.worker
    if worker is not None:
        places = (worker.jobs.get(job.key) is job) + (worker.leaving.get(job.key) is job)
        if places != 1 or core.workers.sessions.get(worker.session) is not worker:
            raise InvariantError(job.tell("its worker does not have it exactly once"))


def _check_counts(core: Core) -> None:
    jobs = core.jobs.values()
    if len(core.queue) != sum(job.state == "queued" for job in jobs):
        raise InvariantError("the queue and the jobs disagree")
    if core.queue.running != sum(job.charged is not None for job in jobs):
        raise InvariantError("the queue counts other running jobs than there are")
    if {job.key for job in core.settling.all()} != {job.key for job in jobs if job.state == "limbo"}:
        raise InvariantError("the jobs in limbo and the jobs disagree")
    if len(core.settling) != len(core.settling.all()):
        raise InvariantError("the jobs in limbo are miscounted")
    doubtful = sum(job.doubtful for job in core.settling.all())
    if len(core.settling) > doubtful and not core.settling.open:
        raise InvariantError("jobs are in limbo after the end of that time")
    if len(core.results) != sum(job.ended for job in jobs):
        raise InvariantError("the kept results and the jobs disagree")
    if core.recalls != sum(job.recalled for job in jobs):
        raise InvariantError("the recalls are miscounted")
    if core.input_bytes != sum(job.cost for job in jobs if not job.ended):
        raise InvariantError("the bytes of input are miscounted")
    if sum(meter.unfinished for meter in core.meters.clients.values()) != sum(not job.ended for job in jobs):
        raise InvariantError("the jobs of the principals are miscounted")
    needs: dict[str, int] = {}
    for job in jobs:
        if not job.ended:
            for digest in (job.spec.module, *job.files):
                needs[digest] = needs.get(digest, 0) + 1
    _check_functions(core, needs)
    if needs != core.modules.needs():
        raise InvariantError("the modules that are needed and the jobs disagree")
    timed = sum(waiter.timed for job in jobs for waiter in job.waiters)
    limited = sum(job.state == "queued" and job.spec.queue_timeout_ms > 0 for job in jobs)
    if len(core.timers) != timed + limited + doubtful + len(core.workers) + core.settling.open:
        raise InvariantError("the timers and what they are for disagree")


def _check_functions(core: Core, needs: dict[str, int]) -> None:
    """``needs`` gets what the functions need of the store."""
    core.functions.table.audit()
    specs = [*core.functions.table.specs()]
    specs += [version.spec for change in core.functions.pending for version in change.gone]
    pins: dict[str, int] = {}
    for spec in specs:
        for digest in (spec.module, *files_of(spec)):
            pins[digest] = pins.get(digest, 0) + 1
            needs[digest] = needs.get(digest, 0) + 1
    if pins != {module.digest: module.pins for module in core.modules.all() if module.pins}:
        raise InvariantError("the modules that functions need and the functions disagree")


def _check_workers(core: Core) -> None:
    workers = core.workers
    sessions = set(workers.sessions.values())
    if set(workers.by_id.values()) != sessions or set(workers.by_connection.values()) != sessions:
        raise InvariantError("the indexes of the workers disagree")
    for worker in sessions:
        for job in [*worker.jobs.values(), *worker.leaving.values()]:
            if job.worker is not worker or core.jobs.get(job.key) is not job:
                raise InvariantError(job.tell("a worker has it that it does not belong to"))
        for handle, arrival in worker.arrivals.items():
            if worker.leaving.get(arrival.job.key) is not arrival.job or handle not in worker.puller:
                raise InvariantError(arrival.job.tell("its result is fetched and is not on its way"))
