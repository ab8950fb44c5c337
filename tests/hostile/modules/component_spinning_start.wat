(component (core module $m (func $s (loop $again (br $again))) (start $s) (func (export "make")))
  (core instance $i (instantiate $m)) (func (export "make") (canon lift (core func $i "make"))))
