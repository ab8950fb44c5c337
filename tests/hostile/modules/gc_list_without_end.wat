(module (type $node (struct (field (ref null $node)))) (global $head (mut (ref null $node)) (ref.null $node))
  (func (export "_start") (loop $more (global.set $head (struct.new $node (global.get $head))) (br $more))))
