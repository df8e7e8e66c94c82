//! Small modules to start from, one file each beside this one: `late_flights` (a filter in ten lines), `split_lines`
//! (one record in, many out), `deduplicate` and `tally` (keyed state), `longest` (a window per key).
