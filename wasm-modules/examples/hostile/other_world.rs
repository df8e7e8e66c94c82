//! A sound component of a world that is not ours. Expect: the upload is refused, naming what is missing.
#![allow(unsafe_code)]

wit_bindgen::generate!({
    inline: "
        package elsewhere:greeter@0.1.0;
        world greeter {
            export greet: func(name: string) -> string;
        }
    ",
});

struct Greeter;

impl Guest for Greeter {
    fn greet(name: String) -> String {
        format!("hello {name}")
    }
}

export!(Greeter);
