;; Exits with what fd_filestat_set_size answers.
(module
  (import "wasi_snapshot_preview1" "fd_filestat_set_size" (func $fd_filestat_set_size (param i32 i64) (result i32)))
  (import "wasi_snapshot_preview1" "proc_exit" (func $proc_exit (param i32)))
  (memory (export "memory") 2)
  (data (i32.const 512) "file")
  (func (export "_start") (call $proc_exit (call $fd_filestat_set_size (i32.const 1) (i64.const 0)))))
