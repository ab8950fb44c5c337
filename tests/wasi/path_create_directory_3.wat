;; Exits with what path_create_directory answers.
(module
  (import "wasi_snapshot_preview1" "path_create_directory" (func $path_create_directory (param i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "proc_exit" (func $proc_exit (param i32)))
  (memory (export "memory") 2)
  (data (i32.const 512) "file")
  (func (export "_start") (call $proc_exit (call $path_create_directory (i32.const 3) (i32.const 512) (i32.const 4)))))
