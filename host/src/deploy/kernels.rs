//! What engines run on the devices of this machine, compiled ahead.
//!
//! Owns the folder that replicas find it in, which is made anew at each start: an engine takes
//! what is there for its own, and so nothing gets there but what was compiled here, whose MAC
//! is that of its very bytes.

use crate::devices::Devices;
use crate::sched::cpus;
use crate::sealed::Sealed;
use crate::store::{Sha256Digest, Store};
use crate::worker::{KernelName, OneShot, OneShotError};
use futures_util::{StreamExt, TryStreamExt, stream};
use sha2::{Digest, Sha256};
use std::collections::BTreeSet;
use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::Mutex;

/// How long what has failed is not tried again.
const TRY_AGAIN_AFTER: Duration = Duration::from_mins(10);

/// What the cache has these under, beside their names, which tell releases apart.
const COMPILER: &str = "0";

/// Modes of what processes of another user read. Whoever else would is kept out by the data
/// directory.
const FOLDER_MODE: u32 = 0o755;
const FILE_MODE: u32 = 0o444;

/// The kernels of a host.
#[derive(Debug)]
pub(super) struct Kernels {
    one_shot: OneShot,
    store: Arc<Store>,
    folder: Arc<Path>,
    capabilities: BTreeSet<(u32, u32)>,
    made: Mutex<Option<Made>>,
}

/// How making them went.
#[derive(Debug)]
enum Made {
    All,
    Failed { why: String, at: Instant },
}

impl Kernels {
    /// For these devices, in a folder that there is not yet.
    pub(super) fn new(
        one_shot: OneShot,
        store: Arc<Store>,
        folder: &Path,
        devices: &Devices,
    ) -> Self {
        let capabilities = devices.all().iter().filter_map(|device| device.capability).collect();
        Self { one_shot, store, folder: folder.into(), capabilities, made: Mutex::default() }
    }

    /// The folder, once all of them are there, or why they are not. What is not there yet is
    /// compiled meanwhile; what has failed is left alone for a while.
    pub(super) async fn ready(&self) -> Result<Arc<Path>, String> {
        let mut made = self.made.lock().await;
        match &*made {
            Some(Made::All) => return Ok(self.folder.clone()),
            Some(Made::Failed { why, at }) if at.elapsed() < TRY_AGAIN_AFTER => {
                return Err(why.clone());
            }
            Some(Made::Failed { .. }) | None => {}
        }
        match self.make().await {
            Ok(()) => {
                *made = Some(Made::All);
                Ok(self.folder.clone())
            }
            Err(why) => {
                tracing::warn!("tract computes on no accelerator: {why}");
                *made = Some(Made::Failed { why: why.clone(), at: Instant::now() });
                Err(why)
            }
        }
    }

    async fn make(&self) -> Result<(), String> {
        if self.capabilities.is_empty() {
            return Err("there is no device that it has kernels for".to_owned());
        }
        let cuda = self.one_shot.cuda();
        let headers = cuda.headers().ok_or_else(|| {
            format!(
                "CUDA's headers, cuda_fp16.h and those of CCCL, are not in {cuda}; `cuda` of host.yaml \
                 names its folders"
            )
        })?;
        let capabilities = self.capabilities.iter().copied().collect();
        let names = self.one_shot.kernels_for(capabilities).await.map_err(told)?;
        let all = names.len();
        let each = names.into_iter().map(|name| {
            let (one_shot, store) = (self.one_shot.clone(), self.store.clone());
            one(one_shot, store, self.folder.clone(), name, headers.to_vec())
        });
        let compiled: Vec<bool> = stream::iter(each).buffer_unordered(cpus()).try_collect().await?;
        let compiled = compiled.into_iter().filter(|is_new| *is_new).count();
        tracing::info!(compiled, of = all, "kernels for accelerators are there");
        Ok(())
    }
}

/// Puts one into the folder, and says whether it had to be compiled.
async fn one(
    one_shot: OneShot,
    store: Arc<Store>,
    folder: Arc<Path>,
    name: KernelName,
    headers: Vec<PathBuf>,
) -> Result<bool, String> {
    let key = key_of(&name.path);
    let (kept, kept_in) = (store.clone(), folder.clone());
    let path = name.path.clone();
    let find = move || {
        let Some(code) = kept.compiled(&key, COMPILER) else { return Ok(false) };
        write(&kept_in, &path, &code.to_vec()?)?;
        Ok(true)
    };
    if blocking(find).await? {
        return Ok(false);
    }
    let path = name.path.clone();
    let bytes = one_shot.compile_kernel(name, headers).await.map_err(told)?;
    blocking(move || {
        write(&folder, &path, &bytes)?;
        if let Err(error) = store.keep_compiled(&key, COMPILER, &Sealed::of(bytes.as_slice())?) {
            tracing::warn!(%error, "a kernel is compiled again at the next start");
        }
        Ok(())
    })
    .await?;
    Ok(true)
}

fn key_of(path: &Path) -> Sha256Digest {
    Sha256::digest([b"kernel\0", path.as_os_str().as_encoded_bytes()].concat()).into()
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> Result<T, String> {
    let done = tokio::task::spawn_blocking(work).await.map_err(|error| error.to_string())?;
    done.map_err(|error| format!("kernels cannot be kept: {error}"))
}

/// In words of what an operator can do.
fn told(error: OneShotError) -> String {
    match error {
        OneShotError::Limit(limit) => format!("compiling its kernels took more than {limit}"),
        other => other.to_string(),
    }
}

/// Writes a file below a folder, where others may read it.
fn write(below: &Path, path: &Path, bytes: &[u8]) -> io::Result<()> {
    let is_plain = |part: Component<'_>| matches!(part, Component::Normal(_));
    if !path.components().all(is_plain) {
        return Err(io::Error::other("one has no plain name"));
    }
    let mut here = below.to_owned();
    make_folder(&here)?;
    for part in path.parent().into_iter().flat_map(Path::components) {
        here.push(part);
        make_folder(&here)?;
    }
    let mut file = tempfile::NamedTempFile::new_in(&here)?;
    io::Write::write_all(&mut file, bytes)?;
    file.as_file().set_permissions(Permissions::from_mode(FILE_MODE))?;
    file.persist(below.join(path)).map(drop).map_err(|error| error.error)
}

fn make_folder(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(FOLDER_MODE).create(path)?;
    // The mode of a process's files may take some away.
    fs::set_permissions(path, Permissions::from_mode(FOLDER_MODE))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::devices::{Cuda, Device};
    use crate::worker::launcher_of;

    fn kernels_in(scratch: &Path, devices: &Devices) -> Kernels {
        let launcher = launcher_of(scratch, "#!/bin/sh\necho tried >> FOLDER/tries\n");
        let launcher = launcher.with_cuda(Cuda::of(&[scratch.to_owned()]));
        let store = Arc::new(Store::open(&scratch.join("data")).unwrap());
        Kernels::new(OneShot::of(launcher), store, &scratch.join("kernels"), devices)
    }

    fn one_device() -> Devices {
        Devices::of(vec![Device {
            id: "a".into(),
            name: "A".into(),
            memory_bytes: 1,
            capability: Some((9, 0)),
            nodes: vec![],
        }])
    }

    #[tokio::test]
    async fn without_a_device_or_headers_there_are_none_and_it_says_why() {
        let scratch = tempfile::TempDir::new().unwrap();
        let none = kernels_in(scratch.path(), &Devices::default());
        assert!(none.ready().await.unwrap_err().contains("no device"));
        drop(none);
        let why = kernels_in(scratch.path(), &one_device()).ready().await.unwrap_err();
        assert!(why.contains("cuda_fp16.h") && why.contains(scratch.path().to_str().unwrap()));
    }

    /// Nobody's calls have it tried again and again.
    #[tokio::test]
    async fn what_has_failed_is_left_alone_for_a_while() {
        let scratch = tempfile::TempDir::new().unwrap();
        for header in ["include/cuda_fp16.h", "include/cccl/cuda/std/cstdint"] {
            let path = scratch.path().join(header);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "").unwrap();
        }
        let kernels = kernels_in(scratch.path(), &one_device());
        let first = kernels.ready().await.unwrap_err();
        assert_eq!(kernels.ready().await.unwrap_err(), first);
        let tries = fs::read_to_string(scratch.path().join("tries")).unwrap();
        assert_eq!(tries.lines().count(), 1, "{first}");
    }

    #[test]
    fn only_a_plain_name_is_written_to() {
        let scratch = tempfile::TempDir::new().unwrap();
        let below = scratch.path().join("kernels");
        write(&below, Path::new("a/b.cubin"), b"b").unwrap();
        assert_eq!(fs::read(below.join("a/b.cubin")).unwrap(), b"b");
        for path in ["../out", "/out", "a/../../out"] {
            assert!(write(&below, Path::new(path), b"").is_err(), "{path}");
        }
        assert!(!scratch.path().join("out").exists());
    }
}
