//! The sum of what a sandbox's linear memories and tables take.
//!
//! wasmtime limits each memory by itself; this adds them up, charges them to
//! the version's account and remembers a refusal, so that the trap that follows
//! is reported as what it is.

use super::account::{Account, Charge, OverLimit};
use crate::call::Holder;
use crate::limits::{Limits, limit};
use wasmtime::ResourceLimiter;

/// Bytes that wasmtime keeps for one element of a table: the pointer, and the
/// function reference that it is lazily turned into.
const TABLE_ELEMENT_BYTES: u64 = 24;

/// The limiter of one sandbox.
#[derive(Debug)]
pub(crate) struct Limiter {
    memory: Charge,
    tables: Charge,
    _stack: Charge,
    table_elements: usize,
    memory_bytes_start: u64,
    memory_bytes_peak: u64,
    memory_growths: u64,
    last_growth_bytes: u64,
    denied: Option<OverLimit>,
    /// Whether what asks for more is the host, which reads the guest's memory.
    is_lifted: bool,
    table_elements_max: usize,
    memories_max: usize,
    tables_max: usize,
    instances_max: usize,
}

impl Limiter {
    pub(crate) fn new(account: &Account, limits: &Limits) -> Result<Self, OverLimit> {
        #[cfg(test)]
        let limits = &limits.clone().lifted();
        Ok(Self {
            memory: account.charge(Holder::Memory, 0)?,
            tables: account.charge(Holder::Table, 0)?,
            _stack: account.charge(Holder::Stack, limits.stack_bytes)?,
            table_elements: 0,
            memory_bytes_start: 0,
            memory_bytes_peak: 0,
            memory_growths: 0,
            last_growth_bytes: 0,
            denied: None,
            is_lifted: false,
            table_elements_max: limits.table_elements_max,
            memories_max: limits.memories_max,
            tables_max: limits.tables_max,
            instances_max: limits.instances_max,
        })
    }

    /// The last growth that was refused, if any was.
    pub(crate) fn denied(&self) -> Option<OverLimit> {
        self.denied
    }

    /// Forgets the last refusal, and takes note of what there is. A guest that
    /// survived a refusal while it loaded has not failed of it.
    pub(crate) fn start_call(&mut self) {
        self.denied = None;
        self.memory_bytes_start = self.memory.bytes();
    }

    /// From here on nothing of the guest's runs, and what its memory grows by is not
    /// charged.
    pub(crate) fn lift(&mut self) {
        self.is_lifted = true;
    }

    /// Bytes of linear memory.
    pub(crate) fn memory_bytes(&self) -> u64 {
        self.memory.bytes()
    }

    /// Bytes of linear memory when the call began.
    pub(crate) fn memory_bytes_start(&self) -> u64 {
        self.memory_bytes_start
    }

    /// Times that linear memory has grown.
    pub(crate) fn memory_growths(&self) -> u64 {
        self.memory_growths
    }

    /// Largest sum of linear memory so far, in bytes.
    pub(crate) fn memory_bytes_peak(&self) -> u64 {
        self.memory_bytes_peak
    }
}

impl ResourceLimiter for Limiter {
    fn memory_growing(
        &mut self,
        current: usize,
        desired: usize,
        maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        self.last_growth_bytes = 0;
        if self.is_lifted {
            return Ok(true);
        }
        if maximum.is_some_and(|maximum| desired > maximum) {
            // The guest's own declaration forbids it; that is no limit of ours.
            return Ok(false);
        }
        let growth = desired.saturating_sub(current) as u64;
        match self.memory.grow(growth) {
            Ok(()) => {
                // Whoever goes on after a refusal has not failed of it.
                self.denied = None;
                self.last_growth_bytes = growth;
                self.memory_growths += 1;
                self.memory_bytes_peak = self.memory_bytes_peak.max(self.memory.bytes());
                Ok(true)
            }
            Err(over) => {
                self.denied = Some(over);
                Ok(false)
            }
        }
    }

    fn memory_grow_failed(&mut self, _: wasmtime::Error) -> wasmtime::Result<()> {
        self.memory.shrink(std::mem::take(&mut self.last_growth_bytes));
        Ok(())
    }

    fn table_growing(
        &mut self,
        current: usize,
        desired: usize,
        maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        if maximum.is_some_and(|maximum| desired > maximum) {
            return Ok(false);
        }
        let growth = desired.saturating_sub(current);
        let elements = self.table_elements.saturating_add(growth);
        if elements > self.table_elements_max {
            self.denied = Some(OverLimit {
                holder: Holder::Table,
                memory_bytes_max: self.table_elements_max as u64 * TABLE_ELEMENT_BYTES,
            });
            return Ok(false);
        }
        match self.tables.grow(growth as u64 * TABLE_ELEMENT_BYTES) {
            Ok(()) => {
                self.denied = None;
                self.table_elements = elements;
                Ok(true)
            }
            Err(over) => {
                self.denied = Some(over);
                Ok(false)
            }
        }
    }

    fn instances(&self) -> usize {
        limit("instances", self.instances_max)
    }

    fn tables(&self) -> usize {
        limit("tables", self.tables_max)
    }

    fn memories(&self) -> usize {
        limit("memories", self.memories_max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sandbox::Diagnostics;
    use crate::sandbox::engine::config;
    use wasm_encoder::{
        CodeSection, ExportKind, ExportSection, Function, FunctionSection, HeapType, Instruction,
        Module, RefType, TableSection, TableType, TypeSection, ValType,
    };

    /// Of a sandbox whose stack is charged to nobody.
    fn limiter(account: &Account, limits: &Limits) -> Limiter {
        let limits = Limits { stack_bytes: 0, ..limits.clone() };
        Limiter::new(account, &limits).unwrap()
    }

    #[test]
    fn a_stack_is_charged_as_long_as_its_sandbox_lives() {
        let limits = Limits { stack_bytes: 60, ..Limits::default() };
        let account = Account::new(100);
        let first = Limiter::new(&account, &limits).unwrap();
        assert_eq!(Limiter::new(&account, &limits).unwrap_err().holder, Holder::Stack);
        drop(first);
        assert_eq!(account.bytes(), 0);
    }

    #[test]
    fn memories_together_have_a_limit_and_a_failed_growth_is_given_back() {
        let account = Account::new(100);
        let mut limiter = limiter(&account, &Limits::default());
        assert!(limiter.memory_growing(0, 60, None).unwrap());
        assert!(!limiter.memory_growing(0, 60, None).unwrap());
        assert_eq!(limiter.denied().unwrap().holder, Holder::Memory);
        limiter.start_call();
        assert_eq!(limiter.denied(), None);

        assert!(limiter.memory_growing(60, 100, None).unwrap());
        limiter.memory_grow_failed(wasmtime::Error::msg("no address space")).unwrap();
        assert_eq!((account.bytes(), limiter.memory_bytes_peak()), (60, 100));
    }

    #[test]
    fn what_a_module_forbids_itself_is_no_limit_of_the_host() {
        let mut limiter = limiter(&Account::new(100), &Limits::default());
        assert!(!limiter.memory_growing(0, 50, Some(40)).unwrap());
        assert!(!limiter.table_growing(0, 50, Some(40)).unwrap());
        assert_eq!(limiter.denied(), None);
    }

    #[test]
    fn tables_together_have_a_limit() {
        let limits = Limits { table_elements_max: 10, ..Limits::default() };
        let account = Account::new(1 << 20);
        let mut limiter = limiter(&account, &limits);
        assert!(limiter.table_growing(0, 6, None).unwrap());
        assert!(!limiter.table_growing(0, 5, None).unwrap());
        assert_eq!(limiter.denied().unwrap().holder, Holder::Table);
        assert!(limiter.table_growing(6, 10, None).unwrap());
        assert_eq!(account.bytes_of(Holder::Table), 10 * TABLE_ELEMENT_BYTES);
        drop(limiter);
        assert_eq!(account.bytes(), 0);
    }

    /// MEM-08: a table that no machine has, from the start and by growing.
    #[test]
    fn a_table_of_four_billion_elements_is_refused() {
        const MOST: u32 = u32::MAX;
        let engine = wasmtime::Engine::new(&config(Diagnostics::Off)).unwrap();
        let store = || {
            let limiter = limiter(&Account::new(1 << 20), &Limits::default());
            let mut store = wasmtime::Store::new(&engine, limiter);
            store.limiter(|limiter| limiter);
            store.set_epoch_deadline(1 << 40);
            store.set_fuel(1 << 40).unwrap();
            store
        };
        let module = |minimum: u32| wasmtime::Module::new(&engine, with_table(minimum)).unwrap();
        assert!(wasmtime::Instance::new(&mut store(), &module(MOST), &[]).is_err());
        let mut store = store();
        let instance = wasmtime::Instance::new(&mut store, &module(1), &[]).unwrap();
        let grow = instance.get_typed_func::<i32, i32>(&mut store, "grow").unwrap();
        for more in [MOST - 1, MOST, 1 << 31] {
            assert_eq!(grow.call(&mut store, more.cast_signed()).unwrap(), -1, "{more} more");
        }
        assert_eq!(grow.call(&mut store, 9).unwrap(), 1);
    }

    /// A module that has so large a table, and grows it as it is asked to.
    fn with_table(minimum: u32) -> Vec<u8> {
        let (mut module, mut types) = (Module::new(), TypeSection::new());
        types.ty().function([ValType::I32], [ValType::I32]);
        let (mut functions, mut tables) = (FunctionSection::new(), TableSection::new());
        functions.function(0);
        tables.table(TableType {
            element_type: RefType::FUNCREF,
            table64: false,
            minimum: minimum.into(),
            maximum: None,
            shared: false,
        });
        let (mut exports, mut code) = (ExportSection::new(), CodeSection::new());
        exports.export("grow", ExportKind::Func, 0);
        let mut grow = Function::new([]);
        grow.instruction(&Instruction::RefNull(HeapType::FUNC));
        grow.instruction(&Instruction::LocalGet(0));
        grow.instruction(&Instruction::TableGrow(0));
        grow.instruction(&Instruction::End);
        code.function(&grow);
        module.section(&types).section(&functions).section(&tables).section(&exports);
        module.section(&code);
        module.finish()
    }

    #[test]
    fn tables_are_charged_to_the_version() {
        let account = Account::new(3 * TABLE_ELEMENT_BYTES);
        let mut limiter = limiter(&account, &Limits::default());
        assert!(limiter.table_growing(0, 3, None).unwrap());
        assert!(!limiter.table_growing(3, 4, None).unwrap());
    }

    #[test]
    fn wasmtime_is_told_how_many_of_each_there_may_be() {
        let limits =
            Limits { memories_max: 1, tables_max: 2, instances_max: 3, ..Limits::default() };
        let limiter = limiter(&Account::new(100), &limits);
        assert_eq!((limiter.memories(), limiter.tables(), limiter.instances()), (1, 2, 3));
    }
}
