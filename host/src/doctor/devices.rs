//! What graphs run on: engines and accelerators.

use super::{Finding, Surroundings};
use std::path::PathBuf;

const LIBRARY: &str = "libonnxruntime.so";

const CUDA: &str = "accelerators: cuda";

/// Where a system keeps libraries.
const LIBRARY_FOLDERS: [&str; 5] = [
    "/usr/local/lib",
    "/usr/lib",
    "/usr/lib64",
    "/usr/lib/x86_64-linux-gnu",
    "/opt/onnxruntime/lib",
];

pub(super) fn examine(surroundings: &Surroundings) -> Vec<Finding> {
    let mut findings = vec![
        Finding::ok("engine: tract", "built in"),
        onnx_runtime(surroundings),
        accelerators(surroundings),
    ];
    findings.extend(unreached(surroundings));
    findings.extend(refused(surroundings));
    // Nobody needs it where there is no device.
    if !surroundings.devices.all().is_empty() {
        findings.push(cuda(surroundings));
    }
    findings
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

fn accelerators(surroundings: &Surroundings) -> Finding {
    let devices = &surroundings.devices;
    let found = match devices.all() {
        [] => format!("{devices}; a model that asks for one is refused"),
        _ => format!("{devices}; each is one replica's at a time"),
    };
    Finding::ok("accelerators", found)
}

/// What devices are reached by has to be there before a replica is started, which may make
/// none of it.
fn unreached(surroundings: &Surroundings) -> Option<Finding> {
    let unreached = surroundings.devices.unreached();
    let advice = "`nvidia-modprobe -u -c 0` makes its nodes, as root; everybody has to be able to \
                  open them";
    (!unreached.is_empty())
        .then(|| Finding::warn("accelerators: nodes", unreached.join(", "), advice))
}

/// A host does not start with these.
fn refused(surroundings: &Surroundings) -> impl Iterator<Item = Finding> {
    surroundings.cuda.problems().map(|(folder, problem)| {
        let found = format!("{} {problem}", folder.display());
        Finding::fail(CUDA, found, "name folders that CUDA is in, or leave that out")
    })
}

fn cuda(surroundings: &Surroundings) -> Finding {
    let cuda = &surroundings.cuda;
    if rustix::process::geteuid().is_root()
        && let Some(closed) = cuda.closed()
    {
        // Processes of replicas are another user's then.
        return Finding::warn(
            CUDA,
            format!("{} is closed to all but its owner", closed.display()),
            "let everybody enter it, or keep CUDA elsewhere: replicas of a host of root are nobody's",
        );
    }
    match cuda.headers() {
        Some(_) => Finding::ok(CUDA, format!("libraries and headers in {cuda}")),
        None => Finding::warn(
            CUDA,
            format!("no cuda_fp16.h with the headers of CCCL in {cuda}; tract computes on none"),
            "install CUDA with its headers, or name its folders with `cuda` of host.yaml",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::devices::{Cuda, Device, Devices};
    use crate::doctor::Verdict;
    use crate::doctor::tests::Root;
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn what_is_there_is_found_and_said_to_be_used_or_not() {
        let root = Root::with(&[("usr/lib/libonnxruntime.so", "")]);
        let [tract, runtime, none] = examine(&root.surroundings()).try_into().unwrap();
        assert!(tract.found.contains("built in"));
        assert!(runtime.found.contains("usr/lib/libonnxruntime.so; used where"));
        assert_eq!(none.found, "no accelerator; a model that asks for one is refused");
        let [_, runtime, _] = examine(&Root::with(&[]).surroundings()).try_into().unwrap();
        assert!(runtime.found.contains("not in the usual folders"));
        let named = Cuda::of(&["/nowhere".into()]);
        let [_, _, _, cuda] =
            examine(&Surroundings { cuda: named, ..root.surroundings() }).try_into().unwrap();
        assert_eq!(cuda.verdict, Verdict::Fail);
        assert_eq!(cuda.found, "/nowhere is no folder of CUDA's");
    }

    #[test]
    fn what_an_accelerator_needs_is_looked_for() {
        let device = |node: &str| Device {
            id: "GPU-1".into(),
            name: "NVIDIA-A10G".into(),
            memory_bytes: 24 << 30,
            capability: Some((8, 6)),
            nodes: vec![node.into()],
        };
        let find = |node: &str, files: &[(&str, &str)]| {
            let root = Root::with(files);
            std::fs::create_dir_all(root.surroundings().at("cuda")).unwrap();
            // Where this is root, it matters who may enter.
            let open = Permissions::from_mode(0o755);
            std::fs::set_permissions(root.surroundings().root, open).unwrap();
            examine(&Surroundings {
                devices: Devices::reached_of(vec![device(node)]),
                cuda: Cuda::of(&[root.surroundings().at("cuda")]),
                ..root.surroundings()
            })
        };
        let [_, _, there, nodes] = find("/dev/none", &[]).try_into().unwrap();
        let problem = "NVIDIA-A10G cannot be reached: /dev/none: No such file or directory";
        assert!(nodes.found.starts_with(problem), "{}", nodes.found);
        assert!(there.found.starts_with(&format!("no accelerator ({problem}")), "{}", there.found);
        assert_eq!(nodes.verdict, Verdict::Warn);
        let header = ("cuda/include/cuda_fp16.h", "");
        let [_, _, there, cuda] = find("/dev/null", &[header]).try_into().unwrap();
        assert_eq!(there.found, "NVIDIA-A10G with 24576Mi; each is one replica's at a time");
        assert_eq!(cuda.verdict, Verdict::Warn);
        let of_library = ("cuda/include/cccl/cuda/std/cstdint", "");
        let [_, _, _, cuda] = find("/dev/null", &[header, of_library]).try_into().unwrap();
        assert_eq!(cuda.verdict, Verdict::Ok);
    }
}
