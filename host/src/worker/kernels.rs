//! What engines run on devices is compiled by one-shot processes, which have no device and
//! read nothing that anybody sends.

use super::launch::Confinement;
use super::one_shot::{OneShot, OneShotError};
use crate::devices::Cuda;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use std::time::Duration;

/// What compiling one library of kernels may take: ten times what the largest does.
const CPU_SECONDS: u64 = 300;
const DATA_BYTES: u64 = 2 << 30;
const TIMEOUT: Duration = Duration::from_secs(900);

/// A library of kernels for devices of one capability.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KernelName {
    /// Which library it is.
    pub number: usize,
    /// What its devices can do.
    pub capability: (u32, u32),
    /// Where an engine looks for it, below the folder that it finds compiled files in. This
    /// is another for each release of the engine and of the compiler.
    pub path: PathBuf,
}

/// What such a process is to do.
#[derive(Debug, Serialize, Deserialize)]
pub enum KernelTask {
    /// Say which libraries there are for devices of these capabilities: [`KernelName`]s.
    Name(Vec<(u32, u32)>),
    /// Compile one of them, with headers from these folders: bytes.
    Compile(KernelName, Vec<PathBuf>),
}

impl OneShot {
    /// Where CUDA is for these.
    pub fn cuda(&self) -> &Cuda {
        self.launcher().cuda()
    }

    /// Which libraries there are for devices of these capabilities.
    pub async fn kernels_for(
        &self,
        capabilities: Vec<(u32, u32)>,
    ) -> Result<Vec<KernelName>, OneShotError> {
        self.run_kernel_task(&KernelTask::Name(capabilities)).await
    }

    /// Compiles one of them.
    pub async fn compile_kernel(
        self,
        name: KernelName,
        headers: Vec<PathBuf>,
    ) -> Result<Vec<u8>, OneShotError> {
        self.run_kernel_task(&KernelTask::Compile(name, headers)).await
    }

    async fn run_kernel_task<T: DeserializeOwned>(
        &self,
        task: &KernelTask,
    ) -> Result<T, OneShotError> {
        let launcher = self.launcher();
        let confinement = Confinement::of_one_shot(launcher.mode(), CPU_SECONDS, DATA_BYTES)
            .with_driver(Some(launcher.libraries()));
        let odd = |error: postcard::Error| OneShotError::Died(error.to_string());
        let input = postcard::to_stdvec(task).map_err(odd)?;
        let given = self.ahead().run(&["kernel-worker"], confinement, &input, TIMEOUT).await?;
        let given = given.ok_or_else(|| OneShotError::Died("it gave nothing".to_owned()))?;
        postcard::from_bytes(&given).map_err(odd)
    }
}
