//! Write a model for Ringfence: implement [`Model`], name it in [`export!`],
//! build for `wasm32-wasip2`.
//!
//! ```
//! use ringfence_guest::{Error, Input, Model, Output, Params};
//!
//! struct Hello;
//!
//! impl Model for Hello {
//!     fn load() -> Result<Self, Error> {
//!         Ok(Hello)
//!     }
//!
//!     fn predict(&self, input: Input, _params: &Params) -> Result<Output, Error> {
//!         Ok(Output::text(format!("Hello, {}!", input.text()?)))
//!     }
//! }
//!
//! ringfence_guest::export!(Hello);
//! ```
//!
//! # What a model may keep
//!
//! A sandbox may start from a copy of the memory that [`Model::load`] left, so
//! nothing that the host handed out by number can live in a model: the number
//! means nothing in the copy. What this crate offers is built for that.
//! [`graph`] is a name; opening it lends a handle to one closure. [`asset`]
//! and the log macros ([`info!`] and so on) are plain calls. [`Outputs`] and
//! [`Requests`] are borrowed for one call.
//!
//! `println!` and `std::fs` may be used in `load`: what the C library keeps of
//! them is closed after it, where the target is `wasm32-wasip2`. Avoid a
//! `std::fs::File` that the model keeps, the clocks of `std::time` (a copy would
//! take the past for the present), and random numbers (every copy would go on
//! with the same ones; see [`random`]): such a model works, but `load` runs for
//! each call, as `ringfence test` tells. A `HashMap` is fine, but all copies
//! share its seed.
//!
//! # Outside the sandbox
//!
//! `cargo test` on the machine that builds a model works: the log goes to
//! standard error, assets are read from the folder `1` of the current
//! directory, where cargo runs a package's tests, and graphs answer
//! `unsupported`; `ringfence serve --model` is the place to try those.

#![deny(missing_docs)]

mod context;
mod error;
mod export;
mod graph;
mod host;
mod input;
mod methods;
mod model;
mod output;
mod params;
pub mod random;
pub mod raw;
#[cfg(target_family = "wasm")]
mod standard;
mod stream;
mod tensor;
mod value;

pub use context::{AssetInfo, Level, ModelInfo, asset, asset_piece, asset_text, log, model_info};
pub use error::{Error, ErrorCode};
pub use graph::{Graph, OpenGraph, Tensors, graph};
#[cfg(feature = "half")]
pub use half;
pub use input::Input;
pub use methods::{Argument, Methods, Type, arg};
pub use model::Model;
pub use output::{Output, Usage};
pub use params::Params;
pub use serde_json;
pub use stream::{Message, Outputs, Requests};
pub use tensor::{Tensor, TensorType};
pub use value::{BoundingBox, Concept, Frame, Ndarray, Part, Point, Region, Value};

#[doc(hidden)]
pub use export::calls as __calls;

/// The README's example compiles.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
