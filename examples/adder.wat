;; A component: typed functions, called by name with values.
;;   minilambda-client --invoke add examples/adder.wasm -- 2 3
;;   minilambda-client --invoke greet examples/adder.wasm -- World
(component
  (core module $code
    (memory (export "memory") 1)
    (data (i32.const 8) "Hello, ")
    ;; An allocator that only goes forward; memory is new for every run.
    (global $free (mut i32) (i32.const 1024))
    (func (export "realloc") (param $old i32) (param $old_size i32) (param $align i32) (param $size i32) (result i32)
      (local $at i32)
      (local.set $at
        (i32.and
          (i32.add (global.get $free) (i32.sub (local.get $align) (i32.const 1)))
          (i32.sub (i32.const 0) (local.get $align))))
      (global.set $free (i32.add (local.get $at) (local.get $size)))
      (block $fits
        (br_if $fits (i32.le_u (global.get $free) (i32.mul (memory.size) (i32.const 65536))))
        (br_if $fits
          (i32.ne
            (memory.grow (i32.add (i32.div_u (local.get $size) (i32.const 65536)) (i32.const 1)))
            (i32.const -1)))
        (unreachable))
      (memory.copy (local.get $at) (local.get $old) (local.get $old_size))
      (local.get $at))
    (func (export "add") (param i32 i32) (result i32)
      (i32.add (local.get 0) (local.get 1)))
    ;; The result is a pair of address and length; the text is put together in place, before the name.
    (func (export "greet") (param $name i32) (param $size i32) (result i32)
      (memory.copy (i32.sub (local.get $name) (i32.const 7)) (i32.const 8) (i32.const 7))
      (i32.store (i32.const 0) (i32.sub (local.get $name) (i32.const 7)))
      (i32.store (i32.const 4) (i32.add (local.get $size) (i32.const 7)))
      (i32.const 0)))
  (core instance $instance (instantiate $code))
  (func (export "add") (param "a" s32) (param "b" s32) (result s32)
    (canon lift (core func $instance "add")))
  (func (export "greet") (param "name" string) (result string)
    (canon lift
      (core func $instance "greet")
      (memory (core memory $instance "memory"))
      (realloc (core func $instance "realloc")))))
