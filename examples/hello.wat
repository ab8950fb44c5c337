;; The smallest useful WASI command: one write to stdout.
;;   minilambda-client examples/hello.wasm
(module
  (import "wasi_snapshot_preview1" "fd_write" (func $fd_write (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 1)
  (data (i32.const 0) "\10\00\00\00\13\00\00\00") ;; one buffer: address 16, 19 bytes
  (data (i32.const 16) "Hello, WebAssembly\0a")
  (func (export "_start")
    (drop (call $fd_write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8)))))
