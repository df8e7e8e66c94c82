;; What every module exports.
(type $kinds (enum "text" "integer" "float" "boolean" "duration" "table"))
(type $param (record
  (field "name" string) (field "kind" $kinds) (field "required" bool)
  (field "default" (option string)) (field "description" string)))
(type $metadata (record
  (field "name" string) (field "version" string) (field "description" string) (field "params" (list $param))))
(type $failure (record (field "index" u32) (field "message" string)))
(type $bytes (list u8))
(type $answered (tuple $bytes (list $failure)))
(func $describe (result $metadata)
  (canon lift (core func $guest "describe") (memory $memory) (realloc $realloc)))
(func $configure (param "params" (list (tuple string string))) (result (result (error string)))
  (canon lift (core func $guest "configure") (memory $memory) (realloc $realloc)))
(instance $module
  (export "param-kind" (type $kinds))
  (export "param" (type $param))
  (export "metadata" (type $metadata))
  (export "describe" (func $describe))
  (export "configure" (func $configure)))
(export "headwater:module/module@1.0.0" (instance $module))
