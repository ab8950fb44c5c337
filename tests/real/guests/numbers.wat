;; numbers.c as a component. tools/guests.py puts the compiled program in the place of the core module below.
(component
  (core module $code
    (func (export "total") (param i32) (result i32)
      (unreachable)))
  (core instance $instance (instantiate $code))
  (func (export "total") (param "count" u32) (result u32)
    (canon lift (core func $instance "total"))))
