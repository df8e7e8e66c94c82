//! A core module with one export. Expect: the upload is refused, saying that it is no component.

/// Something for the module to export.
// A name that is not mangled is unsafe in principle: another crate could have the same. This one has no other.
#[allow(unsafe_code)]
#[unsafe(no_mangle)]
pub extern "C" fn add(left: i32, right: i32) -> i32 {
    left.wrapping_add(right)
}
