//! What wit-bindgen makes of the contract: the services a module may import: tables, state, log.
//! It owns no behaviour; `headwater-guest` puts its traits behind these names. A crate of its own because the
//! generator's macros have the same names for every world.

wit_bindgen::generate!({
    inline: "
        package headwater:guest;
        world services {
            import headwater:module/types@1.0.0;
            import headwater:module/lookup@1.0.0;
            import headwater:module/state@1.0.0;
            import headwater:module/log@1.0.0;
        }
    ",
    path: "../../../wit",
    generate_all,
});
