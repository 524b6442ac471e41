//! The wire's messages and services, generated from `proto/`.
#![allow(
    missing_docs,
    unreachable_pub,
    clippy::all,
    clippy::allow_attributes_without_reason,
    clippy::indexing_slicing,
    reason = "the generated code documents itself by the protocol files it comes from"
)]

pub mod json;

/// `clarifai.api`, the part that a predicting client needs.
pub mod clarifai {
    pub mod api {
        tonic::include_proto!("clarifai.api");

        pub mod status {
            tonic::include_proto!("clarifai.api.status");
        }
    }
}

/// `ringfence.v1`: what an operator and the owners of models do.
pub mod ringfence {
    pub mod v1 {
        tonic::include_proto!("ringfence.v1");
    }
}

/// The descriptors of everything above, for server reflection.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
