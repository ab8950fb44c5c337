(module (func $s (loop $again (br $again))) (start $s) (func (export "_start")))
