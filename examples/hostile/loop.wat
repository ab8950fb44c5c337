;; Never ends: `deadline_exceeded`.
(module
  (func (export "_start")
    (loop $forever (br $forever))))
