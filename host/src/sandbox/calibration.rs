//! How much fuel this machine burns in a second of CPU time.
//!
//! Owns the mixes of instructions that are tried and what a measurement is good
//! for: `cpu_limit` is time, and the ceiling of a call is fuel. What the fastest
//! mix burns is that ceiling, so that no guest is stopped for its fuel that is
//! within its time.

use super::Diagnostics;
use super::compiled::compiler_id;
use super::engine::config;
use super::meters::nanoseconds;
use super::thread_cpu::thread_cpu;
use crate::digest::sha256_of;
use crate::limits::FUEL_PER_CPU_SECOND;
use crate::text::hex;
use std::time::Duration;
use wasm_encoder::{
    BlockType, CodeSection, ExportKind, ExportSection, Function, FunctionSection, Instruction,
    MemArg, MemorySection, MemoryType, Module, TypeSection, ValType,
};
use wasmtime::{Instance, Store};

/// CPU time that each mix is run for, and how often: what ran beside it once did
/// not do so each time.
const TIME: Duration = Duration::from_millis(10);
const TIMES: usize = 3;

/// Rounds between two looks at the clock.
const ROUNDS: i32 = 50_000;

/// Steps of a round, so that the loop itself counts for little.
const STEPS: u64 = 16;

/// Chains of steps that do not wait for each other.
const CHAINS: u32 = 4;

/// What is done over and over.
#[derive(Debug, Clone, Copy)]
enum Mix {
    Add,
    Load,
    Store,
    Fill,
    Copy,
}

const MIXES: [Mix; 5] = [Mix::Add, Mix::Load, Mix::Store, Mix::Fill, Mix::Copy];

/// Bytes that a bulk instruction writes: few enough to stay near the CPU.
const BULK_BYTES: i32 = 16 << 10;

/// Measures. Takes about a sixth of a second of CPU time.
pub fn calibrate() -> Result<u64, String> {
    let text = |error: wasmtime::Error| format!("{error:#}");
    let engine = wasmtime::Engine::new(&config(Diagnostics::Off)).map_err(text)?;
    let rates = MIXES.map(|mix| fuel_per_second(&engine, mix).map_err(text));
    // Never less than where nothing was measured.
    rates.into_iter().try_fold(FUEL_PER_CPU_SECOND, |most, rate| Ok(most.max(rate?)))
}

/// What a measurement is good for: the same kind of CPU, and the same compiler and
/// prices of fuel.
pub fn calibration_id() -> Result<String, String> {
    Ok(id_of(&compiler_id()?))
}

fn id_of(compiler: &str) -> String {
    let cpu = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let says = ["vendor_id", "cpu family", "model", "stepping", "microcode", "CPU "];
    let of_first = cpu.split("\n\n").next().unwrap_or_default().lines();
    let lines = of_first.filter(|line| says.iter().any(|word| line.starts_with(word)));
    let text = lines.chain([compiler]).collect::<Vec<_>>().join("\n");
    sha256_of(text.as_bytes()).map(|(digest, _)| hex(&digest)).unwrap_or_default()
}

fn fuel_per_second(engine: &wasmtime::Engine, mix: Mix) -> wasmtime::Result<u64> {
    let module = wasmtime::Module::from_binary(engine, &module(mix))?;
    let mut store = Store::new(engine, ());
    store.set_epoch_deadline(u64::MAX / 2);
    store.set_fuel(u64::MAX / 2)?;
    let instance = Instance::new(&mut store, &module, &[])?;
    let run = instance.get_typed_func::<i32, i32>(&mut store, "run")?;
    let rounds = match mix {
        Mix::Add | Mix::Load | Mix::Store => ROUNDS,
        Mix::Fill | Mix::Copy => ROUNDS / BULK_BYTES + 1,
    };
    run.call(&mut store, rounds)?;
    let mut best = 0;
    for _ in 0..TIMES {
        let (fuel, began) = (store.get_fuel()?, thread_cpu());
        let took = loop {
            run.call(&mut store, rounds)?;
            let took = thread_cpu().saturating_sub(began);
            if took >= TIME {
                break took;
            }
        };
        let burnt = u128::from(fuel.saturating_sub(store.get_fuel()?));
        let rate = burnt * u128::from(nanoseconds(Duration::from_secs(1)));
        let rate = rate / u128::from(nanoseconds(took).max(1));
        best = best.max(u64::try_from(rate).unwrap_or(u64::MAX));
    }
    Ok(best)
}

/// A module whose `run` does a mix so many times.
fn module(mix: Mix) -> Vec<u8> {
    let mut types = TypeSection::new();
    types.ty().function([ValType::I32], [ValType::I32]);
    let mut functions = FunctionSection::new();
    functions.function(0);
    let mut memories = MemorySection::new();
    memories.memory(MemoryType {
        minimum: 1,
        maximum: Some(1),
        memory64: false,
        shared: false,
        page_size_log2: None,
    });
    let mut exports = ExportSection::new();
    exports.export("run", ExportKind::Func, 0);
    let mut code = CodeSection::new();
    code.function(&run(mix));
    let mut module = Module::new();
    module.section(&types).section(&functions).section(&memories).section(&exports).section(&code);
    module.finish()
}

fn run(mix: Mix) -> Function {
    // Local 0 is the number of rounds that are left; then come the chains.
    let mut run = Function::new([(CHAINS, ValType::I32)]);
    let mut put = |instruction: Instruction<'_>| {
        run.instruction(&instruction);
    };
    put(Instruction::Loop(BlockType::Empty));
    for step in 0..STEPS {
        let chain = 1 + u32::try_from(step).unwrap_or(0) % CHAINS;
        let place = MemArg { offset: step * 4, align: 2, memory_index: 0 };
        match mix {
            Mix::Add => {
                put(Instruction::LocalGet(chain));
                put(Instruction::LocalGet(0));
                put(Instruction::I32Add);
                put(Instruction::LocalSet(chain));
            }
            Mix::Load => {
                put(Instruction::LocalGet(chain));
                put(Instruction::I32Const(0));
                put(Instruction::I32Load(place));
                put(Instruction::I32Add);
                put(Instruction::LocalSet(chain));
            }
            Mix::Store => {
                put(Instruction::I32Const(0));
                put(Instruction::LocalGet(chain));
                put(Instruction::I32Store(place));
            }
            Mix::Fill => {
                put(Instruction::I32Const(0));
                put(Instruction::LocalGet(chain));
                put(Instruction::I32Const(BULK_BYTES));
                put(Instruction::MemoryFill(0));
            }
            Mix::Copy => {
                put(Instruction::I32Const(0));
                put(Instruction::I32Const(BULK_BYTES));
                put(Instruction::I32Const(BULK_BYTES));
                put(Instruction::MemoryCopy { src_mem: 0, dst_mem: 0 });
            }
        }
    }
    put(Instruction::LocalGet(0));
    put(Instruction::I32Const(1));
    put(Instruction::I32Sub);
    put(Instruction::LocalTee(0));
    put(Instruction::BrIf(0));
    put(Instruction::End);
    put(Instruction::LocalGet(1));
    for chain in 2..=CHAINS {
        put(Instruction::LocalGet(chain));
        put(Instruction::I32Xor);
    }
    put(Instruction::End);
    run
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two measurements of one machine say the same, more or less: the time is
    /// that of the thread, whatever else runs.
    #[test]
    fn a_machine_is_measured_again_as_it_was_before() {
        let (first, second) = (calibrate().unwrap(), calibrate().unwrap());
        assert!(first > 100_000_000, "{first}");
        let ratio = first as f64 / second as f64;
        assert!((0.4..2.5).contains(&ratio), "{first} and {second}");
    }

    #[test]
    fn a_measurement_is_good_for_one_compiler() {
        assert_eq!(id_of("a"), id_of("a"));
        assert_ne!(id_of("a"), id_of("b"));
        assert_eq!(calibration_id().unwrap().len(), 64);
    }
}
