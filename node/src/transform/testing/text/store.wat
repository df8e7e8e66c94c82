;; The memory of a guest, apart from its code so that the host's functions can be given it before the guest is there.
;; `realloc` only goes forward; `reset` begins again.
(core module $Store
  (memory (export "memory") 2)
  (global $free (mut i32) (i32.const 98304))
  (func (export "realloc") (param $old i32) (param $old_size i32) (param $align i32) (param $size i32) (result i32)
    (local $at i32) (local $end i32) (local $missing i32)
    (local.set $at
      (i32.and
        (i32.sub (i32.add (global.get $free) (local.get $align)) (i32.const 1))
        (i32.sub (i32.const 0) (local.get $align))))
    (local.set $end (i32.add (local.get $at) (local.get $size)))
    (local.set $missing (i32.sub (local.get $end) (i32.shl (memory.size) (i32.const 16))))
    (if (i32.gt_s (local.get $missing) (i32.const 0))
      (then
        (if (i32.eq
              (memory.grow (i32.shr_u (i32.add (local.get $missing) (i32.const 65535)) (i32.const 16)))
              (i32.const -1))
          (then unreachable))))
    (global.set $free (local.get $end))
    (local.get $at))
  (func (export "reset") (global.set $free (i32.const 98304))))
(core instance $store (instantiate $Store))
(alias core export $store "memory" (core memory $memory))
(alias core export $store "realloc" (core func $realloc))
