(module (memory i64 0x1000000) (func (export "_start")))
