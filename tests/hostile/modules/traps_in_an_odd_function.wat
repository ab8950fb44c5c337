(module (func $"\1b[31m\0a\e2\80\ae" unreachable) (func (export "_start") (call 0)))
