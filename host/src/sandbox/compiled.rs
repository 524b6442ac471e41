//! Components as machine code: made in one process, loaded in another.
//!
//! The only place that loads machine code.
#![allow(unsafe_code, reason = "JUSTIFICATION: loading compiled code is unsafe by its nature")]

use super::Diagnostics;
use super::engine::config;
use super::snapshot::{self, Copied};
use crate::sealed::Sealed;
use crate::text::hex;
use std::hash::{DefaultHasher, Hash, Hasher};
use wasmtime::component::Component;
use wasmtime::{RegallocAlgorithm, ResourcesRequired};

/// The machine code of a component. Whoever makes one vouches for its bytes.
#[derive(Debug, Clone)]
pub struct Compiled {
    code: Sealed,
    beginning: Beginning,
}

/// What its sandboxes begin with.
#[derive(Debug, Clone)]
pub enum Beginning {
    /// They run `load-model`.
    Load,
    /// The same, and what one of them leaves is to be written into this component.
    Write(Sealed),
    /// They are copies of one that has run it.
    Copy(Copied),
}

impl Compiled {
    /// Takes bytes that [`compile`] has made and that nobody else can have
    /// changed: they came through a pipe of a process that this one started, or
    /// their MAC matches these very bytes.
    pub fn trusted(code: Sealed) -> Self {
        Self { code, beginning: Beginning::Load }
    }

    /// The same, whose sandboxes begin so.
    pub fn beginning_with(self, beginning: Beginning) -> Self {
        Self { beginning, ..self }
    }

    /// What its sandboxes begin with.
    pub fn beginning(&self) -> &Beginning {
        &self.beginning
    }

    /// The bytes, for another process.
    pub fn sealed(&self) -> &Sealed {
        &self.code
    }
}

/// Of what this program does to a component before it compiles it.
const FORM: u32 = 1;

/// How the compiler gives values registers. Either code runs on the same host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Registers {
    /// So that the code is fast.
    Best,
    /// In one pass, which alone takes no more time and memory than the code is long. What
    /// comes before it may.
    SinglePass,
}

/// What is compiled of a component.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Instrumented {
    /// What can be asked for its state, so that it can be written into the component;
    /// itself, where it cannot be made so.
    ForSnapshot,
    /// Itself.
    No,
}

/// Compiles a component. Takes seconds and memory that its author decides on,
/// so it is done in a process of its own. Each thread takes memory for the function that it
/// has before it.
pub fn compile(
    component: &[u8],
    instrumented: Instrumented,
    registers: Registers,
    threads: usize,
) -> Result<Vec<u8>, String> {
    let text = |error: wasmtime::Error| format!("{error:#}");
    let mut config = config(Diagnostics::Off);
    if registers == Registers::SinglePass {
        config.cranelift_regalloc_algorithm(RegallocAlgorithm::SinglePass);
    }
    let engine = wasmtime::Engine::new(&config).map_err(text)?;
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
    let pool = pool.map_err(|error| error.to_string())?;
    let asked = match instrumented {
        // Why it cannot be written is told by whoever tries.
        Instrumented::ForSnapshot => snapshot::asked(component).ok(),
        Instrumented::No => None,
    };
    let component = asked.as_deref().unwrap_or(component);
    pool.install(|| engine.precompile_component(component)).map_err(text)
}

/// What compiled code depends on beside the component: this program's compiler
/// and its settings, as hexadecimal digits.
pub fn compiler_id() -> Result<String, String> {
    let engine = wasmtime::Engine::new(&config(Diagnostics::Off));
    let engine = engine.map_err(|error| format!("{error:#}"))?;
    // Always the same keys; another hash would only mean compiling once more.
    let mut hasher = DefaultHasher::new();
    engine.precompile_compatibility_hash().hash(&mut hasher);
    FORM.hash(&mut hasher);
    Ok(hex(&hasher.finish().to_be_bytes()))
}

/// What each instance of a component takes, if it is one that can be loaded. Why it
/// cannot is told by whoever loads it.
pub(super) fn resources(
    config: &wasmtime::Config,
    compiled: &Compiled,
) -> Option<ResourcesRequired> {
    let engine = wasmtime::Engine::new(config).ok()?;
    load(&engine, compiled).ok()?.resources_required()
}

pub(super) fn load(engine: &wasmtime::Engine, compiled: &Compiled) -> wasmtime::Result<Component> {
    let code = compiled.code.to_vec()?;
    // JUSTIFICATION: components are compiled in another process, so that nothing
    // that an author sends is compiled where tokens are.
    // SAFETY: `Compiled` holds only what `compile` has made, unchanged; wasmtime
    // checks that it was made by this version with these settings.
    unsafe { Component::deserialize(engine, code) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::Limits;
    use crate::nn::Engines;
    use crate::sandbox::Runtime;

    /// PKG-07: what is compiled in one pass runs where the rest does.
    #[test]
    fn code_of_either_kind_is_loaded_without_a_compiler() {
        // An empty component.
        let component = [0x00, 0x61, 0x73, 0x6d, 0x0d, 0x00, 0x01, 0x00];
        for registers in [Registers::Best, Registers::SinglePass] {
            let code = compile(&component, Instrumented::No, registers, 1).unwrap();
            let code = Compiled::trusted(Sealed::of(code.as_slice()).unwrap());
            let runtime =
                Runtime::of_compiled(1, 1, &Limits::default(), &code, Engines::default()).unwrap();
            assert!(load(runtime.engine(), &code).is_ok(), "{registers:?}");
            assert!(Component::from_binary(runtime.engine(), &component).is_err());
        }
    }
}
