//! A sound filter that also wants a network. Expect: the upload is refused, naming the import.
#![allow(unsafe_code)]

wit_bindgen::generate!({
    inline: "
        package elsewhere:network@0.1.0;
        interface sockets {
            connect: func(address: string) -> u32;
        }
        world wants-network {
            import sockets;
        }
    ",
});

use headwater_guest::{Record, filter};

filter!(|record: &Record| {
    #[cfg(target_arch = "wasm32")]
    let socket = elsewhere::network::sockets::connect("example.org:80");
    #[cfg(not(target_arch = "wasm32"))]
    let socket = 0;
    record.offset() >= i64::from(socket)
});
