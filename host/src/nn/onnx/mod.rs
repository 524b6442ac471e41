//! ONNX files before an engine sees them.
//!
//! Owns what a graph may be: how large, how deep, of which operators, and where
//! its data lies. The numbers of fields are those of `onnx.proto3`.

pub(super) mod external;
pub(super) mod ports;
mod protobuf;
mod scan;

pub use scan::{External, Scan, ScanError, scan};
