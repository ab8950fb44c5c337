;; Divides by zero two calls deep: `trap`, with its name and a backtrace.
(module
  (func $ratio (param $a i32) (param $b i32) (result i32)
    (i32.div_s (local.get $a) (local.get $b)))
  (func $average (result i32)
    (call $ratio (i32.const 1) (i32.const 0)))
  (func (export "_start")
    (drop (call $average))))
