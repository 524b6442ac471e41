//! What the configuration leaves out, each in the smallest module that uses it.

use super::*;
use wasm_encoder::{
    CodeSection, Component, ComponentTypeSection, ConstExpr, ExportKind, ExportSection, Function,
    FunctionSection, GlobalSection, GlobalType, HeapType, Instruction, MemArg, MemorySection,
    MemoryType, Module, PrimitiveValType, RefType, StorageType, TagKind, TagSection, TagType,
    TypeSection, ValType,
};
use wasmparser::{Parser, Validator, WasmFeatures};

const PAGE: MemoryType = MemoryType {
    minimum: 1,
    maximum: Some(1),
    memory64: false,
    shared: false,
    page_size_log2: None,
};
const ARG: MemArg = MemArg { offset: 0, align: 2, memory_index: 0 };

fn with_memories(memories: &[MemoryType]) -> Vec<u8> {
    with(memories, |types| types.ty().function([], []), 0, &[])
}

fn with_code(params: &[ValType], instructions: &[Instruction<'_>]) -> Vec<u8> {
    with(&[PAGE], |types| types.ty().function(params.iter().copied(), []), 0, instructions)
}

/// One function, of the type with that number among those that `add` adds.
fn with(
    memories: &[MemoryType],
    add: impl FnOnce(&mut TypeSection),
    of: u32,
    instructions: &[Instruction<'_>],
) -> Vec<u8> {
    let (mut module, mut types, mut functions) =
        (Module::new(), TypeSection::new(), FunctionSection::new());
    add(&mut types);
    functions.function(of);
    module.section(&types).section(&functions);
    let mut section = MemorySection::new();
    for memory in memories {
        section.memory(*memory);
    }
    module.section(&section);
    let (mut code, mut function) = (CodeSection::new(), Function::new([]));
    for instruction in instructions {
        function.instruction(instruction);
    }
    function.instruction(&Instruction::End);
    code.function(&function);
    module.section(&code);
    module.finish()
}

fn throws() -> Vec<u8> {
    let (mut module, mut types, mut tags) = (Module::new(), TypeSection::new(), TagSection::new());
    types.ty().function([], []);
    tags.tag(TagType { kind: TagKind::Exception, func_type_idx: 0 });
    module.section(&types).section(&tags);
    module.finish()
}

/// Asynchronous components need a type of theirs before anything else.
fn streams() -> Vec<u8> {
    let (mut component, mut types) = (Component::new(), ComponentTypeSection::new());
    types.defined_type().stream(Some(PrimitiveValType::U8.into()));
    component.section(&types);
    component.finish()
}

/// CPU-06, CPU-07, CPU-08, MEM-03, MEM-05, MEM-06, MEM-11, HST-18.
#[test]
fn what_is_switched_off_is_refused() {
    use Instruction::{
        ArrayNewDefault, CallRef, Drop, I8x16RelaxedSwizzle, I32AtomicLoad, I32Const, I64Add128,
        LocalGet, ReturnCall,
    };
    let reference = ValType::Ref(RefType { nullable: true, heap_type: HeapType::Concrete(0) });
    let gets = [0, 1, 2, 3].map(LocalGet);
    let [first, second, third, fourth] = &gets;
    let modules = [
        ("a shared memory", with_memories(&[MemoryType { shared: true, ..PAGE }])),
        ("an atomic", with_code(&[], &[I32Const(0), I32AtomicLoad(ARG), Drop])),
        ("a 64-bit memory", with_memories(&[MemoryType { memory64: true, ..PAGE }])),
        ("twenty memories", with_memories(&[PAGE; 20])),
        ("a memory of small pages", {
            with_memories(&[MemoryType { page_size_log2: Some(0), ..PAGE }])
        }),
        ("a call of a reference", {
            let types = |types: &mut TypeSection| {
                types.ty().function([], []);
                types.ty().function([reference], []);
            };
            with(&[PAGE], types, 1, &[LocalGet(0), CallRef(0)])
        }),
        ("an array", {
            let types = |types: &mut TypeSection| {
                types.ty().array(&StorageType::I8, true);
                types.ty().function([], []);
            };
            with(&[PAGE], types, 1, &[I32Const(1 << 30), ArrayNewDefault(0), Drop])
        }),
        ("an exception", throws()),
        ("a tail call", with_code(&[], &[ReturnCall(0)])),
        ("a relaxed instruction", {
            let gets = [first.clone(), second.clone(), I8x16RelaxedSwizzle, Drop];
            with_code(&[ValType::V128; 2], &gets)
        }),
        ("wide arithmetic", {
            let (gets, adds) = ([first, second, third, fourth], [I64Add128, Drop, Drop]);
            let code: Vec<_> = gets.into_iter().cloned().chain(adds).collect();
            with_code(&[ValType::I64; 4], &code)
        }),
        ("a stream", streams()),
    ];
    let engine = wasmtime::Engine::new(&config(Diagnostics::Off)).unwrap();
    let is_taken = |bytes: &[u8]| match Parser::is_component(bytes) {
        true => wasmtime::component::Component::new(&engine, bytes).is_ok(),
        false => wasmtime::Module::new(&engine, bytes).is_ok(),
    };
    for (what, bytes) in modules {
        let broken = Validator::new_with_features(WasmFeatures::all()).validate_all(&bytes).err();
        assert!(broken.is_none(), "{what}: {broken:?}");
        assert!(!is_taken(&bytes), "{what}");
    }
    assert!(is_taken(&with_code(&[], &[I32Const(0), Drop])), "one that uses nothing of that");
}

/// CPU-15: between a function's entry and its first loop nothing is checked, but
/// all is counted, and the next function that is entered is where it ends.
#[test]
fn straight_code_burns_fuel_for_each_step_and_ends_at_the_next_function() {
    const STEPS: u64 = 100_000;
    let (mut module, mut types, mut functions) =
        (Module::new(), TypeSection::new(), FunctionSection::new());
    types.ty().function([ValType::I64], [ValType::I64]);
    functions.function(0).function(0);
    let (mut straight, mut next) = (Function::new([]), Function::new([]));
    straight.instructions().local_get(0);
    for _ in 0..STEPS {
        straight.instructions().local_get(0).i64_rotl();
    }
    straight.instructions().i32_const(1).global_set(0).call(1).end();
    next.instructions().i32_const(1).global_set(1).local_get(0).end();
    let mut globals = GlobalSection::new();
    let reached = GlobalType { val_type: ValType::I32, mutable: true, shared: false };
    for _ in 0..2 {
        globals.global(reached, &ConstExpr::i32_const(0));
    }
    let (mut code, mut exports) = (CodeSection::new(), ExportSection::new());
    code.function(&straight).function(&next);
    exports.export("run", ExportKind::Func, 0);
    exports.export("end", ExportKind::Global, 0).export("next", ExportKind::Global, 1);
    module.section(&types).section(&functions).section(&globals).section(&exports).section(&code);

    let engine = wasmtime::Engine::new(&config(Diagnostics::Off)).unwrap();
    let module = wasmtime::Module::from_binary(&engine, &module.finish()).unwrap();
    let burnt = |fuel: u64| {
        let mut store = wasmtime::Store::new(&engine, ());
        store.set_epoch_deadline(u64::MAX / 2);
        store.set_fuel(fuel).unwrap();
        let instance = wasmtime::Instance::new(&mut store, &module, &[]).unwrap();
        let run = instance.get_typed_func::<i64, i64>(&mut store, "run").unwrap();
        let ended = run.call(&mut store, 1).map(drop);
        let reached = ["end", "next"].map(|name| {
            instance.get_global(&mut store, name).unwrap().get(&mut store).unwrap_i32()
        });
        (ended.map(|()| fuel - store.get_fuel().unwrap()), reached)
    };
    let (enough, reached) = burnt(STEPS * 10);
    let enough = enough.unwrap();
    assert_eq!(reached, [1, 1]);
    assert!((2 * STEPS..2 * STEPS + 100).contains(&enough), "{enough}");
    let (ended, reached) = burnt(STEPS);
    assert_eq!(reached, [1, 0]);
    let out_of_fuel = ended.unwrap_err();
    assert_eq!(out_of_fuel.downcast_ref(), Some(&wasmtime::Trap::OutOfFuel), "{out_of_fuel:?}");
}

/// LEAK-04: a guest cannot look at its own stack, so what the next one finds there is
/// left to the engine, which is asked whether it does so.
#[test]
fn stacks_are_zeroed_between_guests() {
    let engine = wasmtime::Engine::new(&config(Diagnostics::Off)).unwrap();
    assert!(engine.get_async_stack_zeroing());
}
