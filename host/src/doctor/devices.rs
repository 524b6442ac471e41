//! What graphs run on: engines and accelerators.

use super::{Finding, Surroundings};
use std::path::PathBuf;

const LIBRARY: &str = "libonnxruntime.so";

/// Where a system keeps libraries.
const LIBRARY_FOLDERS: [&str; 5] = [
    "/usr/local/lib",
    "/usr/lib",
    "/usr/lib64",
    "/usr/lib/x86_64-linux-gnu",
    "/opt/onnxruntime/lib",
];

/// Most accelerators that are looked for.
const DEVICES_MAX: u32 = 64;

pub(super) fn examine(surroundings: &Surroundings) -> Vec<Finding> {
    vec![
        Finding::ok("engine: tract", "built in, on the CPU"),
        onnx_runtime(surroundings),
        nvidia(surroundings),
    ]
}

fn onnx_runtime(surroundings: &Surroundings) -> Finding {
    if let Some(library) = &surroundings.onnxruntime {
        let path = library.display();
        return match library.is_file() {
            true => Finding::ok("engine: onnx runtime", format!("{path}")),
            false => {
                let advice = "name libonnxruntime.so of ONNX Runtime, or leave that out";
                Finding::fail("engine: onnx runtime", format!("there is no {path}"), advice)
            }
        };
    }
    let usual = LIBRARY_FOLDERS.iter().map(|folder| surroundings.at(folder));
    let folders: Vec<PathBuf> =
        std::env::split_paths(&surroundings.ld_library_path).chain(usual).collect();
    let found = folders.into_iter().map(|folder| folder.join(LIBRARY)).find(|path| path.exists());
    let found = match found {
        Some(path) => format!("{}; used where `onnxruntime` of host.yaml names it", path.display()),
        None => {
            "its library is not in the usual folders; `onnxruntime` of host.yaml may name another"
                .to_owned()
        }
    };
    Finding::ok("engine: onnx runtime", found)
}

fn nvidia(surroundings: &Surroundings) -> Finding {
    let nodes = (0..DEVICES_MAX)
        .filter(|number| surroundings.at(format!("/dev/nvidia{number}")).exists())
        .count();
    let driver = surroundings.read("/proc/driver/nvidia/version");
    let driver = driver.as_ref().and_then(|text| text.lines().next()).unwrap_or("no driver loaded");
    let found = match nodes {
        0 => "no NVIDIA device; a model that asks for one is refused".to_owned(),
        count => format!(
            "{count} NVIDIA device{} ({driver}); not used yet, a model that asks for one is refused",
            if count == 1 { "" } else { "s" }
        ),
    };
    Finding::ok("accelerators", found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::tests::Root;

    #[test]
    fn what_is_there_is_found_and_said_to_be_used_or_not() {
        let root = Root::with(&[
            ("usr/lib/libonnxruntime.so", ""),
            ("dev/nvidia0", ""),
            ("dev/nvidia1", ""),
            ("dev/nvidiactl", ""),
            ("proc/driver/nvidia/version", "NVRM version: 1\nGCC\n"),
        ]);
        let [tract, runtime, nvidia] = examine(&root.surroundings()).try_into().unwrap();
        assert!(tract.found.contains("built in"));
        assert!(runtime.found.contains("usr/lib/libonnxruntime.so; used where"));
        assert!(nvidia.found.starts_with("2 NVIDIA devices (NVRM version: 1); not used yet"));
        let [_, runtime, nvidia] = examine(&Root::with(&[]).surroundings()).try_into().unwrap();
        assert!(runtime.found.contains("not in the usual folders"));
        assert!(nvidia.found.starts_with("no NVIDIA device"));
    }
}
