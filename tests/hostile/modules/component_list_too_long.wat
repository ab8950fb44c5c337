(component (core module $m (memory (export "memory") 1)
    (func (export "make") (result i32) (i32.store (i32.const 0) (i32.const 16)) (i32.store (i32.const 4) (i32.const -1)) (i32.const 0)))
  (core instance $i (instantiate $m))
  (func (export "make") (result (list u8)) (canon lift (core func $i "make") (memory (core memory $i "memory")))))
