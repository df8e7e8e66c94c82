//! The machine's randomness, taken over: whoever asks the C library for entropy gets numbers that follow from the seed.
//!
//! Owns the symbol `getrandom`, by which the standard library seeds its hash maps and most crates their generators. Before
//! [`seed`] was called the system answers. It must never be linked into the product.

#![allow(unsafe_code, reason = "it stands in for a function of the C library")]

use std::ffi::{c_uint, c_void};
use std::sync::Mutex;

use headwater::sys::random::Random;

static SOURCE: Mutex<Option<Random>> = Mutex::new(None);

/// From now on this process has no randomness of its own.
pub(crate) fn seed(seed: u64) {
    *SOURCE.lock().expect("no panic happens under this lock") = Some(Random::seeded(seed));
}

/// # Safety
/// As of the C library's function of that name: `buffer` has room for `length` bytes.
#[unsafe(no_mangle)]
#[allow(unreachable_pub, reason = "the linker sees it")]
pub unsafe extern "C" fn getrandom(buffer: *mut c_void, length: usize, flags: c_uint) -> isize {
    let source = SOURCE.lock().map(|source| source.clone()).unwrap_or_default();
    let Some(random) = source else {
        // SAFETY: the arguments are the caller's, who called us for this very function.
        return unsafe { libc::syscall(libc::SYS_getrandom, buffer, length, flags) as isize };
    };
    // SAFETY: the caller promises that many bytes, which nobody else writes meanwhile.
    let bytes = unsafe { std::slice::from_raw_parts_mut(buffer.cast::<u8>(), length) };
    random.fill(bytes);
    isize::try_from(length).unwrap_or(isize::MAX)
}

#[cfg(test)]
mod tests {
    use std::hash::{BuildHasher, RandomState};

    /// Hash maps of a fresh thread hash alike after the same seed.
    fn fresh() -> u64 {
        super::seed(7);
        std::thread::spawn(|| RandomState::new().hash_one(1))
            .join()
            .expect("it ends")
    }

    #[test]
    fn the_standard_library_draws_from_the_seed() {
        assert_eq!(fresh(), fresh());
    }
}
