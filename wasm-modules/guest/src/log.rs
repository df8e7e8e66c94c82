//! Lines in the node's log, marked with the transform's name. The host drops what exceeds its rate limit; log what is
//! rare. On the host's own target (tests) lines go nowhere.

#[cfg(target_arch = "wasm32")]
use crate::bindings::services::headwater::module::log as host;

macro_rules! level {
    ($name:ident, $level:ident) => {
        pub fn $name(message: &str) {
            #[cfg(target_arch = "wasm32")]
            host::log(host::Level::$level, message);
            #[cfg(not(target_arch = "wasm32"))]
            let _ = message;
        }
    };
}

level!(debug, Debug);
level!(info, Info);
level!(warn, Warn);
level!(error, Error);
