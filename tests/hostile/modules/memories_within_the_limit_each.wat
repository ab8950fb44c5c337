(module (memory 1) (memory $a 0) (memory $b 0) (memory $c 0)
  (func (export "_start") (loop $more
    (if (i32.eq (memory.grow $a (i32.const 16)) (i32.const -1)) (then unreachable))
    (if (i32.eq (memory.grow $b (i32.const 16)) (i32.const -1)) (then unreachable))
    (if (i32.eq (memory.grow $c (i32.const 16)) (i32.const -1)) (then unreachable))
    (br $more))))
