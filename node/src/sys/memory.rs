//! How this process takes memory from the machine.
//!
//! It owns the settings of the allocator, which hold for the whole process: only its main function may ask for them.

/// Between how many heaps the threads are shared out. The allocator would make eight for each core, and each keeps what
/// its threads gave back: with buffers of a megabyte that is most of what a busy node holds.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const HEAPS_MAX: std::ffi::c_int = 2;

/// Keeps the number of heaps small. To be called before there is a second thread.
#[allow(unsafe_code, reason = "the allocator has no other door")]
pub fn share_heaps() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: it stores a number that the allocator looks at when a thread asks for memory for the first time.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, HEAPS_MAX);
    }
}
