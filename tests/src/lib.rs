//! Starts real nodes and looks at them from outside: what the rings that cross crates share.
