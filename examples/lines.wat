;; Numbers the lines of /in.txt, a file that is sent along, and leaves them in /tmp/out.txt, which comes back.
;;   minilambda-client --file /in.txt=README.md --collect /tmp/out.txt=numbered.txt examples/lines.wasm
;; The root of its files is descriptor 3, the /tmp that it may write to is descriptor 4. It exits with the WASI number
;; of what went wrong, 44 for a file that is not there.
(module
  (import "wasi_snapshot_preview1" "path_open"
    (func $path_open (param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_read" (func $fd_read (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_write" (func $fd_write (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "proc_exit" (func $proc_exit (param i32)))
  (memory (export "memory") 2)
  ;; 0: buffer address, 4: buffer length, 8: bytes moved, 12: descriptor, 16…: the names, 64…: a number,
  ;; 1024…: what was read, 65536…: what is to be written, at most twelve times as much
  (data (i32.const 16) "in.txt")
  (data (i32.const 32) "out.txt")
  (global $out (mut i32) (i32.const 0))
  (global $end (mut i32) (i32.const 65536))
  (global $line (mut i32) (i32.const 0))
  (global $fresh (mut i32) (i32.const 1))
  (func $check (param $errno i32)
    (if (local.get $errno) (then (call $proc_exit (local.get $errno)))))
  (func $put (param $char i32)
    (i32.store8 (global.get $end) (local.get $char))
    (global.set $end (i32.add (global.get $end) (i32.const 1))))
  (func $put_number (param $number i32)
    (if (i32.ge_u (local.get $number) (i32.const 10))
      (then (call $put_number (i32.div_u (local.get $number) (i32.const 10)))))
    (call $put (i32.add (i32.const 48) (i32.rem_u (local.get $number) (i32.const 10)))))
  (func $flush
    (local $at i32)
    (local.set $at (i32.const 65536))
    (block $done
      (loop $more
        (br_if $done (i32.ge_u (local.get $at) (global.get $end)))
        (i32.store (i32.const 0) (local.get $at))
        (i32.store (i32.const 4) (i32.sub (global.get $end) (local.get $at)))
        (call $check (call $fd_write (global.get $out) (i32.const 0) (i32.const 1) (i32.const 8)))
        (local.set $at (i32.add (local.get $at) (i32.load (i32.const 8))))
        (br $more)))
    (global.set $end (i32.const 65536)))
  (func $number_lines (param $at i32) (param $end i32)
    (local $char i32)
    (block $done
      (loop $next
        (br_if $done (i32.ge_u (local.get $at) (local.get $end)))
        (if (global.get $fresh)
          (then
            (global.set $line (i32.add (global.get $line) (i32.const 1)))
            (call $put_number (global.get $line))
            (call $put (i32.const 9))))
        (local.set $char (i32.load8_u (local.get $at)))
        (global.set $fresh (i32.eq (local.get $char) (i32.const 10)))
        (call $put (local.get $char))
        (local.set $at (i32.add (local.get $at) (i32.const 1)))
        (br $next))))
  (func (export "_start")
    (local $in i32)
    ;; rights: 2 to read, 64 to write; 9: made where it is missing, emptied where it is not
    (call $check (call $path_open (i32.const 3) (i32.const 0) (i32.const 16) (i32.const 6)
      (i32.const 0) (i64.const 2) (i64.const 0) (i32.const 0) (i32.const 12)))
    (local.set $in (i32.load (i32.const 12)))
    (call $check (call $path_open (i32.const 4) (i32.const 0) (i32.const 32) (i32.const 7)
      (i32.const 9) (i64.const 64) (i64.const 0) (i32.const 0) (i32.const 12)))
    (global.set $out (i32.load (i32.const 12)))
    (block $done
      (loop $more
        (i32.store (i32.const 0) (i32.const 1024))
        (i32.store (i32.const 4) (i32.const 4096))
        (call $check (call $fd_read (local.get $in) (i32.const 0) (i32.const 1) (i32.const 8)))
        (br_if $done (i32.eqz (i32.load (i32.const 8))))
        (call $number_lines (i32.const 1024) (i32.add (i32.const 1024) (i32.load (i32.const 8))))
        (call $flush)
        (br $more)))))
