"""The journal's tables in SQLite: what each record changes there, and everything read back.

What changes often (``jobs``) is apart from what is large (``inputs``, ``results``), so that a small change is a small
write.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterable
from typing import Any

from minilambda.broker import records as r
from minilambda.broker.results import MAX_FORGOTTEN
from minilambda.errors import BadRequest, MinilambdaError
from minilambda.messages import JobSpec, Result
from minilambda.wire import pack, unpack

SCHEMA = 2
"""Version of the tables, in ``user_version``. A change to them needs the next one, and an entry in ``MIGRATIONS``."""

NOT_CALLED = r.Called("", b"")
"""How a job is written down that is no call of a function."""

APPLICATION = 0x6D6C6A31
"""Marks the file as ours, in ``application_id``."""

TABLES = """
CREATE TABLE jobs (
    number INTEGER PRIMARY KEY, principal TEXT NOT NULL, id TEXT NOT NULL, accepted REAL NOT NULL,
    attempt INTEGER NOT NULL, holder TEXT NOT NULL, waiting INTEGER NOT NULL, losses INTEGER NOT NULL,
    cancelling INTEGER NOT NULL, function TEXT NOT NULL DEFAULT '', call BLOB NOT NULL DEFAULT x''
);
CREATE TABLE inputs (number INTEGER PRIMARY KEY, spec BLOB NOT NULL, stdin BLOB NOT NULL, parameters BLOB NOT NULL);
CREATE TABLE results (
    number INTEGER PRIMARY KEY, ended REAL NOT NULL, result BLOB NOT NULL, stdout BLOB NOT NULL, stderr BLOB NOT NULL,
    value BLOB NOT NULL, content BLOB NOT NULL, collected BLOB NOT NULL DEFAULT x''
);
CREATE TABLE forgotten (position INTEGER PRIMARY KEY, principal TEXT NOT NULL, id TEXT NOT NULL);
CREATE TABLE modules (
    digest TEXT NOT NULL, principal TEXT NOT NULL, size INTEGER NOT NULL, PRIMARY KEY (digest, principal)
) WITHOUT ROWID;
CREATE TABLE workers (id TEXT PRIMARY KEY) WITHOUT ROWID;
"""

FUNCTIONS = """
CREATE TABLE functions (
    principal TEXT NOT NULL, name TEXT NOT NULL, last INTEGER NOT NULL, shared INTEGER NOT NULL, aliases TEXT NOT NULL,
    PRIMARY KEY (principal, name)
) WITHOUT ROWID;
CREATE TABLE versions (
    principal TEXT NOT NULL, name TEXT NOT NULL, number INTEGER NOT NULL, spec BLOB NOT NULL, made REAL NOT NULL,
    PRIMARY KEY (principal, name, number)
);
"""

MIGRATIONS: dict[int, str] = {
    1: f"""
{FUNCTIONS}
ALTER TABLE results ADD COLUMN collected BLOB NOT NULL DEFAULT x'';
ALTER TABLE jobs ADD COLUMN function TEXT NOT NULL DEFAULT '';
ALTER TABLE jobs ADD COLUMN call BLOB NOT NULL DEFAULT x'';
"""
}
"""Version to the statements that make the next one of it."""


class JournalRefused(MinilambdaError):
    """The state directory can't be used; the message says why, and what to do."""

    code = "journal_refused"
    sentence = "The broker's state directory can't be used."


def inspect(connection: sqlite3.Connection, path: str) -> int:
    """The version of the tables in a file, 0 for an empty one. Raises ``JournalRefused`` for what is not for us."""
    version: int = connection.execute("PRAGMA user_version").fetchone()[0]
    application = connection.execute("PRAGMA application_id").fetchone()[0]
    if not version and not connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
        return 0
    if application != APPLICATION:
        raise JournalRefused(f"{path} is not a journal of minilambda; choose another state directory.")
    if version > SCHEMA:
        text = f"{path} was written by a newer version of minilambda (journal {version}, this one knows {SCHEMA})"
        raise JournalRefused(f"{text}; use that version, or another state directory.")
    if any(each not in MIGRATIONS for each in range(version, SCHEMA)):
        text = f"{path} was written by a version of minilambda that is too old (journal {version})"
        raise JournalRefused(f"{text}; use another state directory.")
    return version


def prepare(connection: sqlite3.Connection, version: int) -> None:
    """Make the tables in an empty file (``version`` 0), bring older ones up to date."""
    if not version:
        connection.executescript(
            f"BEGIN; {TABLES} {FUNCTIONS} PRAGMA application_id = {APPLICATION};PRAGMA user_version = {SCHEMA}; COMMIT;"
        )
        return
    while version < SCHEMA:
        connection.executescript(f"BEGIN; {MIGRATIONS[version]} PRAGMA user_version = {version + 1}; COMMIT;")
        version += 1


# --- writing -----------------------------------------------------------------------------------------


def apply(connection: sqlite3.Connection, records: Iterable[r.Record]) -> None:
    """Carry records out, in order, within the transaction that is open."""
    execute = connection.execute
    for record in records:
        _APPLY[type(record)](execute, record)


def _accepted(execute: Callable[..., Any], record: r.JobAccepted) -> None:
    row = (record.number, *record.key, record.accepted, *(record.called or NOT_CALLED))
    execute("INSERT INTO jobs VALUES (?, ?, ?, ?, 0, '', 1, 0, 0, ?, ?)", row)
    execute("INSERT INTO inputs VALUES (?, ?, ?, ?)", (record.number, pack(record.spec), record.stdin, record.values))


def _moved(execute: Callable[..., Any], record: r.JobMoved) -> None:
    row = (record.attempt, record.holder, record.waiting, record.losses, record.cancelling, record.number)
    text = "UPDATE jobs SET attempt = ?, holder = ?, waiting = ?, losses = ?, cancelling = ? WHERE number = ?"
    execute(text, row)


def _ended(execute: Callable[..., Any], record: r.JobEnded) -> None:
    outputs = (record.stdout, record.stderr, record.value)
    row = (record.number, record.ended, pack(record.result), *outputs, record.content, record.collected)
    execute("INSERT OR REPLACE INTO results VALUES (?, ?, ?, ?, ?, ?, ?, ?)", row)
    execute("UPDATE jobs SET losses = ? WHERE number = ?", (record.losses, record.number))
    if record.drops_input:
        execute("UPDATE inputs SET stdin = x'', parameters = x'' WHERE number = ?", (record.number,))


def _forgotten(execute: Callable[..., Any], record: r.JobForgotten) -> None:
    _delete(execute, record.number)
    execute("INSERT INTO forgotten (principal, id) VALUES (?, ?)", record.key)
    oldest = "(SELECT max(position) FROM forgotten) - ?"
    execute(f"DELETE FROM forgotten WHERE position <= {oldest}", (MAX_FORGOTTEN,))


def _delete(execute: Callable[..., Any], number: int) -> None:
    for table in ("jobs", "inputs", "results"):
        execute(f"DELETE FROM {table} WHERE number = ?", (number,))


def _kept(execute: Callable[..., Any], record: r.ModuleKept) -> None:
    execute("INSERT OR REPLACE INTO modules VALUES (?, ?, ?)", (record.digest, record.principal, record.size))


def _function_kept(execute: Callable[..., Any], record: r.FunctionKept) -> None:
    row = (record.principal, record.name, record.last, record.shared, json.dumps(record.aliases))
    execute("INSERT OR REPLACE INTO functions VALUES (?, ?, ?, ?, ?)", row)


def _function_gone(execute: Callable[..., Any], record: r.FunctionGone) -> None:
    for table in ("functions", "versions"):
        execute(f"DELETE FROM {table} WHERE principal = ? AND name = ?", (record.principal, record.name))


def _version_kept(execute: Callable[..., Any], record: r.VersionKept) -> None:
    row = (record.principal, record.name, record.number, pack(record.spec), record.made)
    execute("INSERT OR REPLACE INTO versions VALUES (?, ?, ?, ?, ?)", row)


def _version_gone(execute: Callable[..., Any], record: r.VersionGone) -> None:
    row = (record.principal, record.name, record.number)
    execute("DELETE FROM versions WHERE principal = ? AND name = ? AND number = ?", row)


_APPLY: dict[type[Any], Callable[[Callable[..., Any], Any], object]] = {
    r.JobAccepted: _accepted,
    r.JobMoved: _moved,
    r.JobEnded: _ended,
    r.JobForgotten: _forgotten,
    r.JobWithdrawn: lambda execute, record: _delete(execute, record.number),
    r.ModuleKept: _kept,
    r.ModuleDropped: lambda execute, record: execute("DELETE FROM modules WHERE digest = ?", (record.digest,)),
    r.WorkerKnown: lambda execute, record: execute("INSERT OR IGNORE INTO workers VALUES (?)", (record.worker,)),
    r.FunctionKept: _function_kept,
    r.FunctionGone: _function_gone,
    r.VersionKept: _version_kept,
    r.VersionGone: _version_gone,
    r.WorkerGone: lambda execute, record: execute("DELETE FROM workers WHERE id = ?", (record.worker,)),
}


# --- reading -----------------------------------------------------------------------------------------

_VERSIONS = "SELECT principal, name, number, spec, made FROM versions ORDER BY principal, name, number"

_JOBS = """
SELECT number, principal, id, accepted, attempt, holder, waiting, losses, cancelling, spec, stdin, parameters,
       ended, result, stdout, stderr, value, content, collected,
       function, call
FROM jobs JOIN inputs USING (number) LEFT JOIN results USING (number) ORDER BY number
"""


def read(connection: sqlite3.Connection) -> r.Recovered:
    """Everything. Raises ``JournalRefused`` where a value is not what was written."""
    try:
        jobs = tuple(_job(row) for row in connection.execute(_JOBS))
        functions = tuple(_function(row) for row in connection.execute("SELECT * FROM functions"))
        versions = tuple(_version(row) for row in connection.execute(_VERSIONS))
    except BadRequest as error:
        raise JournalRefused(f"The journal is damaged: {error.message}") from None
    modules = connection.execute("SELECT digest, size, principal FROM modules ORDER BY digest, principal")
    workers = connection.execute("SELECT id FROM workers ORDER BY id")
    forgotten = connection.execute("SELECT principal, id FROM forgotten ORDER BY position")
    return r.Recovered(
        jobs,
        tuple(r.ModuleKept(*row) for row in modules),
        tuple(row[0] for row in workers),
        tuple((row[0], row[1]) for row in forgotten),
        functions,
        versions,
    )


def _job(row: tuple[Any, ...]) -> r.SavedJob:
    number, principal, job, accepted, attempt, holder, waiting, losses, cancelling, spec, stdin, parameters = row[:12]
    ended, result, stdout, stderr, value, content, collected, function, call = row[12:]
    called = r.Called(function, call) if function else None
    end = None
    if result is not None:
        bodies = (stdout, stderr, value, content)
        end = r.JobEnded(number, unpack(Result, result), *bodies, False, losses, ended, collected)
    return r.SavedJob(
        r.JobAccepted(number, (principal, job), unpack(JobSpec, spec), stdin, parameters, accepted, called),
        r.JobMoved(number, attempt, holder, bool(waiting), losses, bool(cancelling)),
        end,
    )


def _function(row: tuple[Any, ...]) -> r.FunctionKept:
    principal, name, last, shared, text = row
    try:
        aliases = {str(alias): tuple(map(int, history)) for alias, history in json.loads(text).items() if history}
    except (ValueError, TypeError, AttributeError, RecursionError):
        raise BadRequest(f"the aliases of the function {name!r} can't be read.") from None
    return r.FunctionKept(principal, name, last, bool(shared), aliases)


def _version(row: tuple[Any, ...]) -> r.VersionKept:
    principal, name, number, spec, made = row
    return r.VersionKept(principal, name, number, unpack(JobSpec, spec), made)
