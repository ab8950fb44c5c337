;; Wants 4 GiB before it begins: `out_of_memory`.
(module
  (memory (export "memory") 65536)
  (func (export "_start")))
