//! The generated halves of the contract under one name, for the export macros.
//! It owns nothing. Never offer it as API: its shape is the generator's, not ours.

pub use headwater_bindings_aggregate as aggregate;
pub use headwater_bindings_filter as filter;
pub use headwater_bindings_mapping as mapping;
pub use headwater_bindings_merging as merging;
pub use headwater_bindings_services as services;
