;; Exits with what fd_close answers.
(module
  (import "wasi_snapshot_preview1" "fd_close" (func $fd_close (param i32) (result i32)))
  (import "wasi_snapshot_preview1" "proc_exit" (func $proc_exit (param i32)))
  (memory (export "memory") 2)
  (data (i32.const 512) "file")
  (func (export "_start") (call $proc_exit (call $fd_close (i32.const 99)))))
