;; What guests have alike: they find the records of a batch, forward or keep them all, and answer.
;;
;;      0   filler, all zero        1104  where an answer stands: outputs or verdicts, failures
;;   1024   what `describe` says    1120  where an answer of the host stands
;;   1088   what `configure` says   2048  texts
;;   4096   records, 16 bytes each: where key and value begin, and their lengths; -1: none
;;  98304   what `realloc` gives
(import "store" "memory" (memory 2))
(import "store" "realloc" (func $realloc (param i32 i32 i32 i32) (result i32)))
(import "store" "reset" (func $reset))
(import "host" "log" (func $log (param i32 i32 i32)))
(import "host" "get-many" (func $get_many (param i32 i32 i32)))
(import "host" "put-many" (func $put_many (param i32 i32)))
(import "host" "scan" (func $scan (param i32 i32 i32 i32 i32 i32)))
(import "host" "open" (func $open (param i32 i32 i32)))
(import "host" "look" (func $look (param i32 i32 i32 i32)))
(import "host" "look-many" (func $look_many (param i32 i32 i32 i32)))
(import "host" "close" (func $close (param i32)))

;; How many records the batch has, which of them is the first that begins with `!` (-1: none), and how often this
;; instance was called.
(global $count (mut i32) (i32.const 0))
(global $bad (mut i32) (i32.const -1))
(global $calls (mut i32) (i32.const 0))
(global $at (mut i32) (i32.const 0))

(func $varint (result i32)
  (local $byte i32) (local $shift i32) (local $raw i32)
  (loop $next
    (local.set $byte (i32.load8_u (global.get $at)))
    (global.set $at (i32.add (global.get $at) (i32.const 1)))
    (local.set $raw
      (i32.or (local.get $raw) (i32.shl (i32.and (local.get $byte) (i32.const 127)) (local.get $shift))))
    (local.set $shift (i32.add (local.get $shift) (i32.const 7)))
    (br_if $next (i32.ge_u (local.get $byte) (i32.const 128))))
  (i32.xor (i32.shr_u (local.get $raw) (i32.const 1))
    (i32.sub (i32.const 0) (i32.and (local.get $raw) (i32.const 1)))))

;; Notes where bytes begin and how many they are, and goes behind them.
(func $note (param $to i32)
  (local $length i32)
  (local.set $length (call $varint))
  (i32.store (local.get $to) (global.get $at))
  (i32.store offset=4 (local.get $to) (local.get $length))
  (if (i32.gt_s (local.get $length) (i32.const 0))
    (then (global.set $at (i32.add (global.get $at) (local.get $length))))))

(func $record (param $index i32) (result i32)
  (i32.add (i32.const 4096) (i32.shl (local.get $index) (i32.const 4))))
(func $value (param $index i32) (result i32) (i32.load offset=8 (call $record (local.get $index))))
(func $value_length (param $index i32) (result i32) (i32.load offset=12 (call $record (local.get $index))))

(func $walk (param $in i32)
  (local $index i32) (local $section_end i32) (local $end i32)
  (global.set $calls (i32.add (global.get $calls) (i32.const 1)))
  (global.set $count (i32.load (local.get $in)))
  (global.set $bad (i32.const -1))
  (if (i32.gt_u (global.get $count) (i32.const 5800)) (then unreachable))
  (global.set $at (i32.add (local.get $in) (i32.const 4)))
  (block $done
    (loop $next
      (br_if $done (i32.ge_u (local.get $index) (global.get $count)))
      ;; A section begins.
      (if (i32.ge_u (global.get $at) (local.get $section_end))
        (then
          (local.set $section_end
            (i32.add (i32.add (global.get $at) (i32.const 28)) (i32.load offset=4 (global.get $at))))
          (global.set $at (i32.add (global.get $at) (i32.const 28)))))
      (local.set $end (call $varint))
      (local.set $end (i32.add (local.get $end) (global.get $at)))
      (global.set $at (i32.add (global.get $at) (i32.const 1)))
      (drop (call $varint))
      (drop (call $varint))
      (call $note (call $record (local.get $index)))
      (call $note (i32.add (call $record (local.get $index)) (i32.const 8)))
      (global.set $at (local.get $end))
      (if (i32.and (i32.eq (global.get $bad) (i32.const -1)) (i32.gt_s (call $value_length (local.get $index)) (i32.const 0)))
        (then
          (if (i32.eq (i32.load8_u (call $value (local.get $index))) (i32.const 33))
            (then (global.set $bad (local.get $index))))))
      (local.set $index (i32.add (local.get $index) (i32.const 1)))
      (br $next))))

(func $answer (param $at i32) (param $size i32) (param $failures i32) (param $failed i32) (result i32)
  (i32.store (i32.const 1104) (local.get $at))
  (i32.store (i32.const 1108) (local.get $size))
  (i32.store (i32.const 1112) (local.get $failures))
  (i32.store (i32.const 1116) (local.get $failed))
  (i32.const 1104))

;; So many outputs, each what its input is.
(func $forward_all (result i32)
  (local $out i32) (local $at i32) (local $index i32)
  (local.set $out
    (call $realloc (i32.const 0) (i32.const 0) (i32.const 4)
      (i32.add (i32.const 4) (i32.mul (global.get $count) (i32.const 5)))))
  (i32.store (local.get $out) (global.get $count))
  (local.set $at (i32.add (local.get $out) (i32.const 4)))
  (block $done
    (loop $next
      (br_if $done (i32.ge_u (local.get $index) (global.get $count)))
      (i32.store (local.get $at) (local.get $index))
      (i32.store8 offset=4 (local.get $at) (i32.const 0))
      (local.set $at (i32.add (local.get $at) (i32.const 5)))
      (local.set $index (i32.add (local.get $index) (i32.const 1)))
      (br $next)))
  (call $answer (local.get $out) (i32.sub (local.get $at) (local.get $out)) (i32.const 0) (i32.const 0)))

;; A verdict of 1 for so many.
(func $keep (param $records i32) (result i32)
  (local $out i32)
  (local.set $out
    (call $realloc (i32.const 0) (i32.const 0) (i32.const 1) (local.get $records)))
  (memory.fill (local.get $out) (i32.const 1) (local.get $records))
  (call $answer (local.get $out) (local.get $records) (i32.const 0) (i32.const 0)))

(data (i32.const 1024) "\00\08\00\00\07\00\00\00\10\08\00\00\05\00\00\00\20\08\00\00\01\00\00\00\00\00\00\00\00\00\00\00")
(data (i32.const 2048) "hostile")
(data (i32.const 2064) "1.0.0")
(data (i32.const 2080) ".")
