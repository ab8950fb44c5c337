;; Exits with how many of the descriptors 0 to 63 are open.
(module
  (import "wasi_snapshot_preview1" "fd_fdstat_get" (func $fd_fdstat_get (param i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "proc_exit" (func $proc_exit (param i32)))
  (memory (export "memory") 1)
  (func (export "_start") (local $fd i32) (local $open i32)
    (loop $next
      (local.set $open (i32.add (local.get $open) (i32.eqz (call $fd_fdstat_get (local.get $fd) (i32.const 64)))))
      (br_if $next (i32.lt_u (local.tee $fd (i32.add (local.get $fd) (i32.const 1))) (i32.const 64))))
    (call $proc_exit (local.get $open))))
