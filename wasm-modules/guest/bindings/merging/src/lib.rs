//! What wit-bindgen makes of the contract: the exports of an aggregate module that merges.
//! It owns no behaviour; `headwater-guest` puts its traits behind these names. A crate of its own because the
//! generator's macros have the same names for every world.

wit_bindgen::generate!({
    world: "merging-aggregate-module",
    path: "../../../wit",
    pub_export_macro: true,
    default_bindings_module: "headwater_bindings_merging",
    with: {
        "headwater:module/types@1.0.0": headwater_bindings_services::headwater::module::types,
        "headwater:module/lookup@1.0.0": headwater_bindings_services::headwater::module::lookup,
        "headwater:module/state@1.0.0": headwater_bindings_services::headwater::module::state,
        "headwater:module/log@1.0.0": headwater_bindings_services::headwater::module::log,
    },
});
