//! The bindings as `wit-bindgen` makes them from the world `model-runner`.
//!
//! The rest of the crate covers what models need; this is for what it does not
//! cover. Handles taken from here are the taker's to close: one that is kept
//! past `load-model` is invalid in every sandbox that starts from a copy of
//! the state that `load-model` left.

#![allow(
    unsafe_code,
    unreachable_pub,
    missing_docs,
    clippy::allow_attributes_without_reason,
    clippy::undocumented_unsafe_blocks,
    reason = "JUSTIFICATION: generated; the component ABI passes pointers and handles"
)]

wit_bindgen::generate!({
    // The only place that says where the WIT is.
    path: "wit",
    world: "ringfence:model/model-runner",
    generate_all,
    pub_export_macro: true,
    additional_derives: [PartialEq],
    default_bindings_module: "ringfence_guest::raw",
});
