//! Accelerators that there are none of: what a host does with them can be seen on any
//! machine.
//!
//! They compute on the CPU, by tract, and have the memory of a device, which a graph and
//! each row of a run take some of. What else happens to devices happens by the number of
//! rows that they are given.

use ringfence::call::Holder;
use ringfence::devices::{self, Device, StandIns};
use ringfence::nn::{
    Beside, ElementType, Elements, Engine, Graph, LoadError, Means, Placement, Ports, Run,
    RunError, Tensor, Tract,
};
use ringfence::sandbox::{Account, Charge};
use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The variable that says which there are, such as `Fake-One:8388608 Fake-Two:16777216`.
pub const DEVICES: &str = "RINGFENCE_TEST_DEVICES";

/// The variable that gives them a capability, such as `9.0`; they have none without.
pub const CAPABILITY: &str = "RINGFENCE_TEST_DEVICE_CAPABILITY";

/// The variable that names what they are reached by.
pub const NODE: &str = "RINGFENCE_TEST_DEVICE_NODE";

/// What they are reached by without: a device that every machine has, and that anybody may
/// write to.
const USUAL_NODE: &str = "/dev/zero";

/// The variable that names a file which says how many bytes of each device the driver finds
/// a process to have.
pub const HELD: &str = "RINGFENCE_TEST_DEVICE_HELD";

/// Bytes of device memory that a row takes as long as it is computed.
pub const ROW_BYTES: u64 = 1 << 20;

/// Rows of a run of which each device is lost.
pub const LOST_ROWS: u32 = 13;

/// Rows of a run that goes on until it is cancelled.
pub const ENDLESS_ROWS: u32 = 11;

/// A graph with this in its name has a node that stays on the CPU.
pub const PARTLY: &str = "partly";

/// Has this process pretend that it has the devices which the environment names, and
/// compute by what pretends to be one.
pub fn stand_in() {
    ringfence::nn::stand_in(|devices| Arc::new(Fake { memory: devices.memory.clone() }));
    let Ok(named) = std::env::var(DEVICES) else { return };
    let capability = std::env::var(CAPABILITY).ok().map(|said| {
        let (major, minor) = said.split_once('.').unwrap();
        (major.parse().unwrap(), minor.parse().unwrap())
    });
    let device = |(place, words): (usize, &str)| {
        let (name, bytes) = words.split_once(':').unwrap();
        let (id, memory_bytes) = (format!("FAKE-{place}"), bytes.parse().unwrap());
        let node = std::env::var(NODE).unwrap_or_else(|_| USUAL_NODE.to_owned());
        let nodes = vec![node.into()];
        Device { id, name: name.to_owned(), memory_bytes, capability, nodes }
    };
    let devices = named.split_whitespace().enumerate().map(device).collect();
    let held_by = |_: &Device, _| {
        let said = std::fs::read_to_string(std::env::var(HELD).ok()?).ok()?;
        said.trim().parse().ok()
    };
    devices::stand_in(StandIns { devices, held_by });
}

/// Arguments that name the folders of CUDA which the environment does, with colons between
/// them.
pub fn cuda_args() -> Vec<String> {
    let folders = std::env::var("RINGFENCE_TEST_CUDA").unwrap_or_default();
    let folders = folders.split(':').filter(|folder| !folder.is_empty());
    folders.flat_map(|folder| ["--cuda".to_owned(), folder.to_owned()]).collect()
}

/// The engine.
struct Fake {
    memory: Account,
}

impl Engine for Fake {
    fn name(&self) -> &'static str {
        "fake"
    }

    fn has(&self, domain: &str, operator: &str) -> bool {
        Tract.has(domain, operator)
    }

    fn devices_max(&self) -> Option<u32> {
        Some(1)
    }

    fn load(
        &self,
        name: &str,
        onnx: &[u8],
        beside: &dyn Beside,
        means: Means,
    ) -> Result<Arc<dyn Graph>, LoadError> {
        let refused =
            |reason: String| LoadError::Engine { engine: "fake", name: name.to_owned(), reason };
        has_only_what_is_its_own().map_err(refused)?;
        let graph = Tract.load(name, onnx, beside, means)?;
        let full = |source| LoadError::Memory { name: name.to_owned(), source };
        let held = self.memory.charge(Holder::Device, graph.bytes()).map_err(full)?;
        let on_cpu = if name.contains(PARTLY) { vec!["softmax".to_owned()] } else { vec![] };
        let placement = Placement { on_device: 1, on_cpu };
        Ok(Arc::new(OnFake { graph, placement, memory: self.memory.clone(), _held: held }))
    }

    fn elements(&self, element: ElementType, shape: &[u32], data: &[u8]) -> Box<dyn Elements> {
        Tract.elements(element, shape, data)
    }
}

/// In a jail, which has no variables but those of a device, nodes of other devices and files of
/// others cannot be opened; what is compiled for devices can be read and not be written to.
fn has_only_what_is_its_own() -> Result<(), String> {
    if std::env::var_os("PATH").is_some() {
        return Ok(());
    }
    for file in ["/dev/full", "/dev/null", "/etc/passwd", "/proc/1/status"] {
        if File::open(file).is_ok() {
            return Err(format!("{file} can be opened"));
        }
    }
    let Some(folder) = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from) else {
        return Ok(());
    };
    let (kernels, new) = (crate::files_below(&folder), folder.join("new"));
    let unread = kernels.iter().find(|kernel| std::fs::read(kernel).is_err());
    let written = kernels.iter().chain([&new]).find(|file| {
        let mut options = std::fs::OpenOptions::new();
        options.write(true).create(true).open(file).is_ok()
    });
    match (kernels.is_empty(), unread, written) {
        (true, _, _) => Err("there are no kernels".to_owned()),
        (_, Some(kernel), _) => Err(format!("{} cannot be read", kernel.display())),
        (_, _, Some(file)) => Err(format!("{} can be written to", file.display())),
        (false, None, None) => Ok(()),
    }
}

/// A graph there.
struct OnFake {
    graph: Arc<dyn Graph>,
    placement: Placement,
    memory: Account,
    _held: Charge,
}

impl Graph for OnFake {
    fn ports(&self) -> &Ports {
        self.graph.ports()
    }

    fn bytes(&self) -> u64 {
        0
    }

    fn placement(&self) -> Option<&Placement> {
        Some(&self.placement)
    }

    fn run(&self, inputs: Vec<Tensor>, run: &mut Run<'_>) -> Result<Vec<Tensor>, RunError> {
        let began = Instant::now();
        let rows = inputs.first().and_then(|input| input.shape().first().copied()).unwrap_or(1);
        let _rows = self.memory.charge(Holder::Device, u64::from(rows) * ROW_BYTES)?;
        if rows == LOST_ROWS {
            return Err(RunError::DeviceLost("it was told to".to_owned()));
        }
        let outputs = loop {
            if rows != ENDLESS_ROWS {
                break self.graph.run(inputs, run);
            }
            // What runs on a device is waited for, and nothing more is launched.
            std::thread::sleep(Duration::from_millis(1));
            if run.cancel.is_cancelled() {
                break Err(RunError::Cancelled);
            }
        };
        run.device = began.elapsed();
        outputs
    }
}
