//! The world's interface `types`: the seam's own values, and what is done with a guest's
//! words before anybody reads them.
#![allow(unreachable_pub, reason = "the generated bindings re-export what they are mapped to")]

pub use crate::call::{
    BoundingBox, Concept, Frame, GuestError as Error, GuestErrorCode as ErrorCode, Input,
    NdArray as Ndarray, Output, Part, Point, Region, Request, Usage, Value,
};
use crate::text::{cut, escape_controls};
use wasmtime::component::{HasData, Linker};

/// It has no functions.
pub trait Host {}

impl<T> Host for T {}

/// Nor any that need the store.
pub trait HostWithStore<T>: HasData {}

impl<T, D: HasData + ?Sized> HostWithStore<T> for D {}

/// It has nothing to link.
pub fn add_to_linker<T: 'static, D: HasData>(
    _: &mut Linker<T>,
    _: fn(&mut T) -> D::Data<'_>,
) -> wasmtime::Result<()> {
    Ok(())
}

/// A guest's error with its texts cut to `text_bytes_max`.
pub(crate) fn guest_error(mut error: Error, text_bytes_max: usize) -> Error {
    cut(&mut error.message, text_bytes_max);
    error.message = escape_controls(&error.message);
    if error.info.len() > text_bytes_max {
        // Half a JSON object is of no use to anybody.
        error.info.clear();
    }
    error
}

/// An error that the host answers to a guest's call.
pub(crate) fn refusal(code: ErrorCode, message: impl Into<String>) -> Error {
    Error { code, message: message.into(), info: String::new() }
}
