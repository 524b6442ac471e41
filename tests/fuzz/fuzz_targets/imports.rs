//! Any calls of everything that a model may import, with any arguments, past what
//! languages let their programs say: handles and pointers that are none, texts that are
//! no UTF-8, cases that do not exist. The call ends as one of a guest's, never as a
//! failure of the host.

#![no_main]

use libfuzzer_sys::{Corpus, fuzz_target};
use ringfence::call::{Deadline, End, Event, Function, Input, Part, Request, Value};
use ringfence::package::folder;
use ringfence::sandbox::{Code, Diagnostics, Program, Runtime, Surroundings};
use std::path::Path;
use std::sync::{Arc, LazyLock};
use std::time::Duration;
use tempfile::TempDir;
use wasm_encoder::{
    CodeSection, ConstExpr, DataSection, EntityType, ExportKind, ExportSection, FunctionSection,
    GlobalSection, GlobalType, ImportSection, InstructionSink, MemArg, MemorySection, MemoryType,
    Module, TypeSection, ValType,
};
use wasmparser::{ExternalKind, Parser, Payload, TypeRef};
use wit_component::{ComponentEncoder, StringEncoding, dummy_module, embed_component_metadata};
use wit_parser::{CloneMaps, LiftLowerAbi, ManglingAndAbi, Resolve, WorldId};

/// The preview 1 adapter knows all of `wasi:cli/imports`.
use wasi_preview1_component_adapter_provider::WASI_SNAPSHOT_PREVIEW1_REACTOR_ADAPTER as ADAPTER;

const CALLS_MAX: usize = 24;
/// A word of the input can be waited for; the deadline is what ends that.
const TIMEOUT: Duration = Duration::from_millis(100);

/// Where the guest's memory has something. What is before is zeros.
const NAMES_AT: i32 = 512;
const NAMES: &[u8] = b"double\0x\0y\0f32\0float32\0/\0.\0model.wasm\0";
const INPUT_AT: i32 = 1024;
/// Where what the host allocates goes.
const HEAP_AT: i32 = 32 << 10;
const PAGES: u64 = 2;

const CONFIG: &str = "model:\n  id: imports\n  user_id: local\n  app_id: main\n  \
                      model_type_id: text-to-text\ninference_compute_info:\n  cpu_limit: \"1\"\n  \
                      cpu_memory: \"32Mi\"\n  num_accelerators: 0\nringfence:\n  call_timeout: 1s\n";
const GRAPH: &[u8] = include_bytes!("../../../guests/hostile/compute-loop/1/double.onnx");

/// A function of a core module.
#[derive(Clone)]
struct Signature {
    module: String,
    name: String,
    params: Vec<ValType>,
    results: Vec<ValType>,
}

struct House {
    resolve: Resolve,
    world: WorldId,
    imports: Vec<Signature>,
    exports: Vec<Signature>,
    runtime: Arc<Runtime>,
    executor: tokio::runtime::Runtime,
    folder: TempDir,
    scratch: TempDir,
}

static HOUSE: LazyLock<House> = LazyLock::new(|| {
    let (resolve, world) = world();
    let mangling = ManglingAndAbi::Legacy(LiftLowerAbi::Sync);
    let (imports, exports) = signatures(&dummy_module(&resolve, world, mangling));
    let folder = TempDir::new().unwrap();
    std::fs::create_dir(folder.path().join("1")).unwrap();
    std::fs::write(folder.path().join("config.yaml"), CONFIG).unwrap();
    std::fs::write(folder.path().join("1/double.onnx"), GRAPH).unwrap();
    House {
        resolve,
        world,
        imports,
        exports,
        runtime: Runtime::start(Diagnostics::Off).unwrap(),
        executor: tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap(),
        folder,
        scratch: TempDir::new().unwrap(),
    }
});

/// The world of models, with all of WASI that the host gives.
fn world() -> (Resolve, WorldId) {
    let (_, adapter) = wit_component::metadata::decode(ADAPTER).unwrap();
    let mut resolve = adapter.resolve;
    let wit = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../wit");
    let (package, _) = resolve.push_dir(wit).unwrap();
    let world = resolve.select_world(&[package], Some("model-runner")).unwrap();
    let names: Vec<_> = resolve.worlds[adapter.world]
        .imports
        .keys()
        .map(|key| (key.clone(), resolve.name_world_key(key)))
        .collect();
    let from = &mut resolve.worlds[adapter.world];
    from.exports.clear();
    for (key, name) in names {
        let is_given = name.starts_with("wasi:") && !name.starts_with("wasi:sockets/");
        if !is_given {
            from.imports.shift_remove(&key);
        }
    }
    resolve.merge_worlds(adapter.world, world, &mut CloneMaps::default()).unwrap();
    (resolve, world)
}

/// What a module imports and exports, of functions.
fn signatures(module: &[u8]) -> (Vec<Signature>, Vec<Signature>) {
    let mut types = Vec::new();
    let mut functions = Vec::new();
    let (mut imports, mut exports) = (Vec::new(), Vec::new());
    let of = |types: &[wasmparser::FuncType], at: u32, module: &str, name: &str| {
        let convert = |types: &[wasmparser::ValType]| {
            types.iter().map(|ty| ValType::try_from(*ty).unwrap()).collect()
        };
        let ty = &types[at as usize];
        Signature {
            module: module.to_owned(),
            name: name.to_owned(),
            params: convert(ty.params()),
            results: convert(ty.results()),
        }
    };
    for payload in Parser::new(0).parse_all(module) {
        match payload.unwrap() {
            Payload::TypeSection(section) => {
                types = section.into_iter_err_on_gc_types().map(Result::unwrap).collect();
            }
            Payload::ImportSection(section) => {
                for import in section.into_imports() {
                    let import = import.unwrap();
                    if let TypeRef::Func(at) = import.ty {
                        functions.push(at);
                        imports.push(of(&types, at, import.module, import.name));
                    }
                }
            }
            Payload::FunctionSection(section) => functions.extend(section.into_iter().map(Result::unwrap)),
            Payload::ExportSection(section) => {
                for export in section {
                    let export = export.unwrap();
                    if export.kind == ExternalKind::Func {
                        exports.push(of(&types, functions[export.index as usize], "", export.name));
                    }
                }
            }
            _ => {}
        }
    }
    (imports, exports)
}

/// The input, read from its beginning; then zeros.
struct Source<'a>(&'a [u8]);

impl Source<'_> {
    fn byte(&mut self) -> u8 {
        let (first, rest) = self.0.split_first().map_or((0, self.0), |(first, rest)| (*first, rest));
        self.0 = rest;
        first
    }

    fn word(&mut self) -> i32 {
        i32::from_le_bytes(std::array::from_fn(|_| self.byte()))
    }

    /// Puts an argument on the stack.
    fn argument(&mut self, code: &mut InstructionSink<'_>, ty: ValType, last: u32) {
        match (ty, self.byte() % 6) {
            (ValType::I64, _) => code.i64_const(self.word().into()),
            (ValType::F32, _) => code.f32_const(f32::from_bits(self.word() as u32).into()),
            (ValType::F64, _) => code.f64_const(f64::from(self.word()).into()),
            (_, 0) => code.local_get(last),
            (_, 1) => code.i32_const(self.byte().into()),
            (_, 2) => code.i32_const(self.place()),
            (_, 3) => code.i32_const(self.word()),
            // What an earlier call has left there.
            (_, 4) => {
                let memory = MemArg { offset: 0, align: 2, memory_index: 0 };
                code.i32_const(self.place()).i32_load(memory)
            }
            (_, _) => code.i32_const(NAMES_AT + i32::from(self.byte()) % NAMES.len() as i32),
        };
    }

    fn place(&mut self) -> i32 {
        INPUT_AT + 4 * i32::from(self.byte())
    }
}

/// A model whose every function makes the calls that the input says.
fn model(input: &[u8]) -> Vec<u8> {
    let House { resolve, world, exports, .. } = &*HOUSE;
    let mut source = Source(input);
    let honest = source.byte() % 4 != 0;
    let calls = usize::from(source.byte()) % (CALLS_MAX + 1);
    let mut steps = Vec::new();
    for _ in 0..calls {
        steps.push((usize::from(source.byte()) % HOUSE.imports.len(), source.0));
        // Each step has as many bytes as the dearest arguments need.
        source.0 = source.0.get(24..).unwrap_or_default();
    }
    // What is not called is not imported: each import costs time to compile.
    let mut used: Vec<usize> = steps.iter().map(|(import, _)| *import).collect();
    used.sort_unstable();
    used.dedup();
    let imports: Vec<&Signature> = used.iter().map(|at| &HOUSE.imports[*at]).collect();
    for (import, _) in &mut steps {
        *import = used.binary_search(import).unwrap();
    }
    let (mut types, mut imported) = (TypeSection::new(), ImportSection::new());
    let (mut functions, mut codes) = (FunctionSection::new(), CodeSection::new());
    let mut exported = ExportSection::new();
    for (at, import) in imports.iter().enumerate() {
        types.ty().function(import.params.iter().copied(), import.results.iter().copied());
        imported.import(&import.module, &import.name, EntityType::Function(at as u32));
    }
    for (at, export) in exports.iter().enumerate() {
        let index = (imports.len() + at) as u32;
        types.ty().function(export.params.iter().copied(), export.results.iter().copied());
        functions.function(index);
        exported.export(&export.name, ExportKind::Func, index);
        let last = export.params.len() as u32;
        let mut body = wasm_encoder::Function::new([(1, ValType::I32)]);
        let mut code = body.instructions();
        let name = &export.name;
        if name == "cabi_realloc" {
            // (old, old length, alignment, length)
            code.global_get(0);
            if honest {
                code.global_get(0).local_get(3).i32_add().i32_const(15).i32_add();
                code.i32_const(-16).i32_and().global_set(0);
            }
        } else {
            if ["#predict", "#generate", "#stream"].iter().any(|called| name.ends_with(called)) {
                for (import, arguments) in &steps {
                    let mut arguments = Source(arguments);
                    for ty in &imports[*import].params {
                        arguments.argument(&mut code, *ty, last);
                    }
                    code.call(*import as u32);
                    for ty in imports[*import].results.iter().rev() {
                        match ty {
                            ValType::I32 => code.local_set(last),
                            _ => code.drop(),
                        };
                    }
                }
            }
            for ty in &export.results {
                match ty {
                    ValType::I32 => code.i32_const(0),
                    ValType::I64 => code.i64_const(0),
                    ValType::F32 => code.f32_const(0.0.into()),
                    _ => code.f64_const(0.0.into()),
                };
            }
        }
        code.end();
        codes.function(&body);
    }
    let mut memories = MemorySection::new();
    let memory = MemoryType {
        minimum: PAGES,
        maximum: None,
        memory64: false,
        shared: false,
        page_size_log2: None,
    };
    memories.memory(memory);
    exported.export("memory", ExportKind::Memory, 0);
    let mut globals = GlobalSection::new();
    let heap = GlobalType { val_type: ValType::I32, mutable: true, shared: false };
    let start = if honest { HEAP_AT } else { source.word() };
    globals.global(heap, &ConstExpr::i32_const(start));
    let mut data = DataSection::new();
    data.active(0, &ConstExpr::i32_const(NAMES_AT), NAMES.iter().copied());
    data.active(0, &ConstExpr::i32_const(INPUT_AT), input.iter().copied());

    let mut module = Module::new();
    module.section(&types).section(&imported).section(&functions).section(&memories);
    module.section(&globals).section(&exported).section(&codes).section(&data);
    let mut module = module.finish();
    let encodings = [StringEncoding::UTF8, StringEncoding::UTF16, StringEncoding::CompactUTF16];
    let encoding = encodings[usize::from(source.byte()) % encodings.len()];
    embed_component_metadata(&mut module, resolve, *world, encoding).unwrap();
    ComponentEncoder::default().module(&module).unwrap().encode().unwrap()
}

fn request() -> Request {
    let part = Part { name: "text".into(), value: Value::Text("hello".into()) };
    let input = Input { id: String::new(), parts: vec![part] };
    Request { method: String::new(), inputs: vec![input], params: "{}".into() }
}

fuzz_target!(|input: &[u8]| -> Corpus {
    if input.len() > HEAP_AT as usize / 4 {
        return Corpus::Reject;
    }
    let House { runtime, executor, folder, scratch, .. } = &*HOUSE;
    std::fs::write(folder.path().join("1/model.wasm"), model(input)).unwrap();
    let package = folder::open(folder.path(), scratch.path(), folder::Taking::Nothing).unwrap();
    let program = Program::admit(runtime, &package, &Code::Component, Surroundings::Real).unwrap();
    let program = Arc::new(program);
    let functions = [Function::Predict, Function::Generate, Function::Stream];
    let function = functions[input.iter().map(|byte| usize::from(*byte)).sum::<usize>() % 3];
    executor.block_on(async {
        let (requests, mut calling) =
            program.call(function, "fuzz", Deadline::after(TIMEOUT), ());
        // A guest may end before it has it.
        let _ = requests.send(request()).await;
        drop(requests);
        loop {
            match calling.next().await {
                Some(Event::End(verdict)) => {
                    assert!(!matches!(verdict.end, End::HostBug(_)), "{:?}", verdict.end);
                    break;
                }
                Some(_) => {}
                None => panic!("a call without an end"),
            }
        }
        drop(calling);
        runtime.drain().await;
    });
    let held: u64 = program.account().bytes();
    assert!(held <= program.limits().memory_bytes_max, "{held} bytes are held");
    Corpus::Keep
});
