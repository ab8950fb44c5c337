(module (memory i64 1)
  (func (export "_start") (if (i64.ne (memory.grow (i64.const 0x7fffffffffff)) (i64.const -1)) (then unreachable))))
