(module (type $t (func)) (table 1 funcref) (elem (i32.const 0) $deeper)
  (func $deeper (export "_start") (call_indirect (type $t) (i32.const 0))))
