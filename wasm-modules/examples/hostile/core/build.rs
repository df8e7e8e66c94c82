//! Leaves the module as the linker makes it: not wrapped into a component.

fn main() {
    if std::env::var("CARGO_CFG_TARGET_ARCH").is_ok_and(|arch| arch == "wasm32") {
        println!("cargo::rustc-link-arg-cdylib=--skip-wit-component");
    }
}
