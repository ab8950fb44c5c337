(module (tag $t) (func (export "_start") (block $h (try_table (catch $t $h) (throw $t)))))
