;; Writes to both streams in turn, an empty vector first each time.
(module
  (import "wasi_snapshot_preview1" "fd_write" (func $fd_write (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "proc_exit" (func $proc_exit (param i32)))
  (memory (export "memory") 1) (data (i32.const 0) "\00\00\00\00\00\00\00\00\40\00\00\00\06\00\00\00") (data (i32.const 64) "foobar")
  (func $write (param i32)
    (if (call $fd_write (local.get 0) (i32.const 0) (i32.const 2) (i32.const 32)) (then unreachable))
    (if (i32.ne (i32.load (i32.const 32)) (i32.const 6)) (then unreachable)))
  (func (export "_start") (call $write (i32.const 1)) (call $write (i32.const 2)) (call $write (i32.const 1))
    (call $proc_exit (i32.const 3)) unreachable))
