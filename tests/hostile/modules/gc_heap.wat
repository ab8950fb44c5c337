(module (type $array (array (mut i64)))
  (func (export "_start") (loop $more (drop (array.new_default $array (i32.const 100000000))) (br $more))))
