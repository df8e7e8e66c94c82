;; Every function that a guest may import, lowered to the memory of `$store`.
(import "headwater:module/log@1.0.0" (instance $log
  (type $levels (enum "debug" "info" "warn" "error"))
  (export "level" (type $level (eq $levels)))
  (export "log" (func (param "level" $level) (param "message" string)))))
(import "headwater:module/state@1.0.0" (instance $state
  (export "get-many" (func (param "keys" (list u8)) (result (list u8))))
  (export "put-many" (func (param "entries" (list u8))))
  (export "scan" (func (param "start" (list u8)) (param "end" (list u8)) (param "limit" u32) (result (list u8))))))
(import "headwater:module/lookup@1.0.0" (instance $lookup
  (export "table" (type $table (sub resource)))
  (export "[static]table.open" (func (param "name" string) (result (result (own $table) (error string)))))
  (export "[method]table.get" (func (param "self" (borrow $table)) (param "key" (list u8)) (result (option (list u8)))))
  (export "[method]table.get-many" (func (param "self" (borrow $table)) (param "keys" (list u8)) (result (list u8))))))
(alias export $lookup "table" (type $table))
(core func $log (canon lower (func $log "log") (memory $memory) (realloc $realloc)))
(core func $get-many (canon lower (func $state "get-many") (memory $memory) (realloc $realloc)))
(core func $put-many (canon lower (func $state "put-many") (memory $memory) (realloc $realloc)))
(core func $scan (canon lower (func $state "scan") (memory $memory) (realloc $realloc)))
(core func $open (canon lower (func $lookup "[static]table.open") (memory $memory) (realloc $realloc)))
(core func $look (canon lower (func $lookup "[method]table.get") (memory $memory) (realloc $realloc)))
(core func $look-many
  (canon lower (func $lookup "[method]table.get-many") (memory $memory) (realloc $realloc)))
(core func $close (canon resource.drop $table))
(core instance $host
  (export "log" (func $log))
  (export "get-many" (func $get-many))
  (export "put-many" (func $put-many))
  (export "scan" (func $scan))
  (export "open" (func $open))
  (export "look" (func $look))
  (export "look-many" (func $look-many))
  (export "close" (func $close)))
