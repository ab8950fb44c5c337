"""Where the broker's shell keeps the bytes of modules: in one file without a name, gone with the process.

The file is cut into blocks that are used again, so it never grows beyond the most that was kept at a time, and
one descriptor is enough for any number of modules.
"""

from __future__ import annotations

import logging
import os
import tempfile
from collections.abc import Iterator

from minilambda.broker.events import DropModule, DropUpload, KeepUpload, StoreAction, StoreModule, WritePiece

BLOCK = 64 * 1024
"""Size of a block, bytes. The unused end of a module's last block takes no room on the disk at first."""

log = logging.getLogger(__name__)


class _Blob:
    """Bytes in blocks."""

    __slots__ = ("blocks", "size")

    def __init__(self) -> None:
        self.blocks: list[int] = []  # numbers, in order
        self.size = 0  # bytes


class Spool:
    """Modules by digest, and uploads by number until they are modules."""

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile(prefix="minilambda-", buffering=0)  # noqa: SIM115 - closed by close()
        self._modules: dict[str, _Blob] = {}
        self._uploads: dict[int, _Blob] = {}
        self._free: list[int] = []  # blocks to use again
        self._blocks = 0  # blocks made so far
        self._memory: dict[int, bytearray] = {}  # blocks that the disk refused

    def do(self, action: StoreAction) -> None:
        """Carry out an action of the core."""
        if isinstance(action, StoreModule):
            self._append(self._modules.setdefault(action.digest, _Blob()), action.data)
        elif isinstance(action, WritePiece):
            self._append(self._uploads.setdefault(action.upload, _Blob()), action.data)
        elif isinstance(action, KeepUpload):
            self._modules[action.digest] = self._uploads.pop(action.upload)
        elif isinstance(action, DropUpload):
            self._drop(self._uploads.pop(action.upload, None))
        elif isinstance(action, DropModule):
            self._drop(self._modules.pop(action.digest, None))

    def read(self, digest: str, offset: int, size: int) -> bytes:
        """A piece of a module. Raises ``KeyError`` when it is not here, ``OSError`` when it can't be read."""
        blob = self._modules[digest]
        runs = self._runs(blob, offset, max(0, min(size, blob.size - offset)))
        pieces = [self._read(block, start, length) for block, start, length in runs]
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def close(self) -> None:
        """Drop everything."""
        self._file.close()
        self._modules.clear()
        self._uploads.clear()

    def _append(self, blob: _Blob, data: bytes) -> None:
        end = blob.size + len(data)
        while len(blob.blocks) * BLOCK < end:
            blob.blocks.append(self._new_block())
        view = memoryview(data)
        for block, start, length in self._runs(blob, blob.size, len(data)):
            self._write(block, start, view[:length])
            view = view[length:]
        blob.size = end

    def _runs(self, blob: _Blob, offset: int, size: int) -> Iterator[tuple[int, int, int]]:
        """Where these bytes are: block, first byte in it, how many. Blocks in a row on the disk are one."""
        end = offset + size
        while offset < end:
            index, start = divmod(offset, BLOCK)
            block, length, blocks = blob.blocks[index], BLOCK - start, 1
            while offset + length < end and blob.blocks[index + blocks] == block + blocks and not self._memory:
                length, blocks = length + BLOCK, blocks + 1
            length = min(length, end - offset)
            yield block, start, length
            offset += length

    def _new_block(self) -> int:
        if self._free:
            return self._free.pop()
        self._blocks += 1
        return self._blocks - 1

    def _write(self, block: int, start: int, piece: memoryview) -> None:
        if block not in self._memory:
            try:
                if os.pwrite(self._file.fileno(), piece, block * BLOCK + start) == len(piece):
                    return
            except OSError as error:
                log.warning("a piece of a module stays in memory, the disk refuses it: %s", error)
        while piece:
            if block not in self._memory:
                self._memory[block] = bytearray(os.pread(self._file.fileno(), start, block * BLOCK))
            self._memory[block][start:] = piece[: BLOCK - start]
            piece = piece[BLOCK - start :]
            block, start = block + 1, 0

    def _read(self, block: int, start: int, size: int) -> bytes:
        if block in self._memory:
            return bytes(self._memory[block][start : start + size])
        data = os.pread(self._file.fileno(), size, block * BLOCK + start)
        if len(data) != size:
            raise OSError("a piece of a module is missing from its file")
        return data

    def _drop(self, blob: _Blob | None) -> None:
        if blob is not None:
            for block in blob.blocks:
                self._memory.pop(block, None)
            self._free.extend(reversed(blob.blocks))  # the first is used again first, and the others behind it
