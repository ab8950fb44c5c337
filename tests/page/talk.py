"""What the tests of the page do again and again."""

from __future__ import annotations

import base64
import functools

from playwright.sync_api import Locator, Page, expect

from tests import wat

DROP = """([name, text]) => {
  const bytes = Uint8Array.from(atob(text), (sign) => sign.charCodeAt(0));
  const transfer = new DataTransfer();
  transfer.items.add(new File([bytes], name));
  for (const kind of ["dragover", "drop"]) {
    document.body.dispatchEvent(new DragEvent(kind, { dataTransfer: transfer, bubbles: true, cancelable: true }));
  }
}"""


@functools.cache
def pausing(first: str, second: str, ms: int) -> bytes:
    """A command that writes ``first``, sleeps, and writes ``second``; each has at most 255 bytes."""
    wasi = "wasi_snapshot_preview1"
    texts = [text.encode() for text in (first, second)]
    lengths = [f"\\{len(text):02x}\\00\\00\\00" for text in texts]
    data = ["".join(f"\\{byte:02x}" for byte in text) for text in texts]
    return wat.wasm(f"""(module
  (import "{wasi}" "fd_write" (func $fd_write (param i32 i32 i32 i32) (result i32)))
  (import "{wasi}" "poll_oneoff" (func $poll_oneoff (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 1)
  (data (i32.const 0) "\\00\\04\\00\\00{lengths[0]}" "\\00\\06\\00\\00{lengths[1]}")
  (data (i32.const 1024) "{data[0]}") (data (i32.const 1536) "{data[1]}")
  (func (export "_start")
    (drop (call $fd_write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 16)))
    (i32.store (i32.const 528) (i32.const 1))
    (i64.store (i32.const 536) (i64.const {ms * 1_000_000}))
    (drop (call $poll_oneoff (i32.const 512) (i32.const 640) (i32.const 1) (i32.const 704)))
    (drop (call $fd_write (i32.const 1) (i32.const 8) (i32.const 1) (i32.const 16)))))""")


def drop(page: Page, name: str, wasm: bytes) -> None:
    """Drop a file on the page."""
    page.evaluate(DROP, [name, base64.b64encode(wasm).decode()])


def run(page: Page, wasm: bytes, name: str = "guest.wasm", **fields: str) -> Locator:
    """Drop a module, fill in fields by their ids, press the button; what shows the run."""
    drop(page, name, wasm)
    expect(page.locator("#chosen")).to_contain_text(name)
    for field, text in fields.items():
        page.locator(f"#{field}").fill(text)
    page.get_by_role("button", name="Run", exact=True).click()
    return page.locator("#run-view")


def overflow(page: Page) -> int:
    """How much wider the page is than the window, pixels."""
    return page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
