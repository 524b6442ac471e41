//! Components as machine code: made in one process, loaded in another.
//!
//! The only place that loads machine code.
#![allow(unsafe_code, reason = "JUSTIFICATION: loading compiled code is unsafe by its nature")]

use super::Diagnostics;
use super::engine::config;
use crate::text::hex;
use std::hash::{DefaultHasher, Hash, Hasher};
use wasmtime::component::Component;

/// The machine code of a component. Whoever makes one vouches for its bytes.
#[derive(Clone)]
pub struct Compiled(Vec<u8>);

impl Compiled {
    /// Takes bytes that [`compile`] has made and that nobody else can have
    /// changed: they came through a pipe of a process that this one started, or
    /// from a file whose MAC matches these very bytes.
    pub fn trusted(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }
}

impl Compiled {
    /// The bytes, for another process.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }
}

impl std::fmt::Debug for Compiled {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Compiled({} bytes)", self.0.len())
    }
}

/// Compiles a component. Takes seconds and memory that its author decides on,
/// so it is done in a process of its own.
pub fn compile(component: &[u8]) -> Result<Vec<u8>, String> {
    let text = |error: wasmtime::Error| format!("{error:#}");
    let engine = wasmtime::Engine::new(&config(Diagnostics::Off)).map_err(text)?;
    engine.precompile_component(component).map_err(text)
}

/// What compiled code depends on beside the component: this program's compiler
/// and its settings, as hexadecimal digits.
pub(super) fn compiler_id(engine: &wasmtime::Engine) -> String {
    // Always the same keys; another hash would only mean compiling once more.
    let mut hasher = DefaultHasher::new();
    engine.precompile_compatibility_hash().hash(&mut hasher);
    hex(&hasher.finish().to_be_bytes())
}

pub(super) fn load(engine: &wasmtime::Engine, compiled: &Compiled) -> wasmtime::Result<Component> {
    // JUSTIFICATION: components are compiled in another process, so that nothing
    // that an author sends is compiled where tokens are.
    // SAFETY: `Compiled` holds only what `compile` has made, unchanged; wasmtime
    // checks that it was made by this version with these settings.
    unsafe { Component::deserialize(engine, &compiled.0) }
}
