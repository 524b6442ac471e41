//! The world's `context`: what a guest can learn and say.

use super::bindings::ringfence::model::context;
use super::state::State;
use super::types::{self, refusal};
use crate::call::HostCall;
use crate::limits::limit;
use crate::telemetry::Level;
use std::os::unix::fs::FileExt;

/// Bytes that one read of an asset returns at most.
const ASSET_READ_BYTES_MAX: u32 = 1 << 20;

impl context::Host for State {
    fn model(&mut self) -> wasmtime::Result<context::ModelInfo> {
        self.note(HostCall::Model);
        Ok(self.shared.info.clone())
    }

    fn log(&mut self, level: context::Level, message: String) -> wasmtime::Result<()> {
        self.note(HostCall::Log);
        let level = match level {
            context::Level::Debug => Level::Debug,
            context::Level::Info => Level::Info,
            context::Level::Warn => Level::Warn,
            context::Level::Error => Level::Error,
        };
        self.log.lock().line(level, &message);
        Ok(())
    }

    fn asset(
        &mut self,
        name: String,
        offset: u64,
        length: u32,
    ) -> wasmtime::Result<Result<Vec<u8>, types::Error>> {
        self.note(HostCall::Asset);
        let Some(file) = self.shared.asset_files.get(&name) else {
            let message = "the package has no such asset; `model().assets` lists what it has";
            return Ok(Err(refusal(types::ErrorCode::InvalidArgument, message)));
        };
        if i64::try_from(offset).is_err() {
            // Beyond the end of any file, and more than the system takes.
            return Ok(Ok(Vec::new()));
        }
        let length = length.min(limit("asset_read", ASSET_READ_BYTES_MAX));
        let mut bytes = vec![0; length as usize];
        let mut filled = 0;
        while let Some(rest) = bytes.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            match file.read_at(rest, offset.saturating_add(filled as u64)) {
                Ok(0) => break,
                Ok(read) => filled += read,
                Err(error) => {
                    tracing::error!(%error, model = %self.shared.label, "cannot read an asset");
                    let message = "the host cannot read this asset";
                    return Ok(Err(refusal(types::ErrorCode::Failed, message)));
                }
            }
        }
        bytes.truncate(filled);
        Ok(Ok(bytes))
    }
}
