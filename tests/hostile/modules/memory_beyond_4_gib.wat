(module (memory 65537) (func (export "_start")))
