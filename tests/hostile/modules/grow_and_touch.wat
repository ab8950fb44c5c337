(module (memory (export "memory") 1)
  (func (export "_start") (local $at i32)
    (loop $more
      (if (i32.eq (memory.grow (i32.const 1)) (i32.const -1)) (then unreachable))
      (local.set $at (i32.add (local.get $at) (i32.const 65536)))
      (i32.store (local.get $at) (i32.const -1))
      (br $more))))
