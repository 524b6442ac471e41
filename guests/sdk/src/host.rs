//! Every call to the host, and what stands in for it outside the sandbox.

#[cfg(target_family = "wasm")]
pub(crate) use sandbox::*;
#[cfg(not(target_family = "wasm"))]
pub(crate) use stand_in::*;

#[cfg(target_family = "wasm")]
mod sandbox {
    use crate::error::Error;
    use crate::output::Output;
    use crate::raw::ringfence::model::context::{self, Level, ModelInfo};
    use crate::raw::ringfence::model::streams::{Sink, Source};
    use crate::raw::ringfence::model::types;
    use crate::raw::wasi::nn::errors::{Error as NnError, ErrorCode as NnErrorCode};
    use crate::raw::wasi::nn::graph::load_by_name;
    use crate::raw::wasi::nn::inference::GraphExecutionContext;
    use crate::raw::wasi::nn::tensor::Tensor as NnTensor;
    use crate::tensor::Tensor;

    pub(crate) fn log(level: Level, message: &str) {
        context::log(level, message);
    }

    pub(crate) fn model() -> ModelInfo {
        context::model()
    }

    pub(crate) fn asset(name: &str, offset: u64, length: u32) -> Result<Vec<u8>, Error> {
        context::asset(name, offset, length).map_err(Error::from_raw)
    }

    pub(crate) fn send(sink: &Sink, output: Output) -> Result<(), Error> {
        sink.send(&output.into_raw()).map_err(Error::from_raw)
    }

    pub(crate) fn next(source: &Source) -> Option<types::Request> {
        source.next()
    }

    /// A context keeps its graph open, so the graph's own handle can go.
    pub(crate) struct Session {
        context: GraphExecutionContext,
    }

    pub(crate) fn open(name: &str) -> Result<Session, Error> {
        let graph = load_by_name(name).map_err(nn)?;
        let context = graph.init_execution_context().map_err(nn)?;
        Ok(Session { context })
    }

    pub(crate) fn compute<'a>(
        session: &Session,
        inputs: impl Iterator<Item = (&'a str, &'a Tensor)>,
    ) -> Result<Vec<(String, Tensor)>, Error> {
        let inputs = inputs
            .map(|(name, tensor)| {
                let handle = NnTensor::new(tensor.axes(), tensor.ty(), tensor.as_bytes());
                (name.to_string(), handle)
            })
            .collect::<Vec<_>>();
        session
            .context
            .compute(inputs)
            .map_err(nn)?
            .into_iter()
            .map(|(name, handle)| {
                let shape: Vec<usize> =
                    handle.dimensions().into_iter().map(|length| length as usize).collect();
                let tensor = Tensor::from_bytes(handle.ty(), &shape, handle.data())?;
                Ok((name, tensor))
            })
            .collect()
    }

    fn nn(error: NnError) -> Error {
        let code = match error.code() {
            NnErrorCode::InvalidArgument => "invalid-argument",
            NnErrorCode::InvalidEncoding => "invalid-encoding",
            NnErrorCode::Timeout => "timeout",
            NnErrorCode::RuntimeError => "runtime-error",
            NnErrorCode::UnsupportedOperation => "unsupported-operation",
            NnErrorCode::TooLarge => "too-large",
            NnErrorCode::NotFound => "not-found",
            NnErrorCode::Security => "security",
            NnErrorCode::Unknown => "unknown",
        };
        Error::failed(format!("{code}: {}", error.data()))
    }
}

#[cfg(not(target_family = "wasm"))]
mod stand_in {
    use std::fs::{self, File};
    use std::io::{Read, Seek, SeekFrom};
    use std::path::Path;

    use crate::error::Error;
    use crate::output::Output;
    use crate::raw::ringfence::model::context::{AssetInfo, Level, ModelInfo};
    use crate::raw::ringfence::model::streams::{Sink, Source};
    use crate::raw::ringfence::model::types;
    use crate::tensor::Tensor;

    const FOLDER: &str = "1";

    pub(crate) fn log(level: Level, message: &str) {
        let level = match level {
            Level::Debug => "debug",
            Level::Info => "info",
            Level::Warn => "warn",
            Level::Error => "error",
        };
        #[allow(clippy::print_stderr, reason = "this is the log outside the sandbox")]
        {
            eprintln!("{level}: {message}");
        }
    }

    pub(crate) fn model() -> ModelInfo {
        let mut assets = Vec::new();
        list(Path::new(FOLDER), "", &mut assets);
        ModelInfo {
            id: String::new(),
            version: String::new(),
            model_type: String::new(),
            concepts: Vec::new(),
            graphs: Vec::new(),
            assets,
        }
    }

    fn list(folder: &Path, prefix: &str, assets: &mut Vec<AssetInfo>) {
        let Ok(entries) = fs::read_dir(folder) else {
            return;
        };
        for entry in entries.flatten() {
            let name = format!("{prefix}{}", entry.file_name().to_string_lossy());
            match entry.metadata() {
                Ok(metadata) if metadata.is_dir() => {
                    list(&entry.path(), &format!("{name}/"), assets);
                }
                Ok(metadata) if is_asset(&name) => {
                    assets.push(AssetInfo { name, size: metadata.len() })
                }
                Ok(_) | Err(_) => {}
            }
        }
    }

    fn is_asset(name: &str) -> bool {
        name != "model.rs" && name != "model.wasm" && !name.ends_with(".onnx")
    }

    pub(crate) fn asset(name: &str, offset: u64, length: u32) -> Result<Vec<u8>, Error> {
        let mut file = File::open(Path::new(FOLDER).join(name))?;
        file.seek(SeekFrom::Start(offset))?;
        let mut bytes = Vec::new();
        file.take(length.into()).read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    pub(crate) fn send(_sink: &Sink, _output: Output) -> Result<(), Error> {
        Err(outside())
    }

    pub(crate) fn next(_source: &Source) -> Option<types::Request> {
        None
    }

    /// There are no graphs outside the sandbox, so none can be open.
    pub(crate) enum Session {}

    pub(crate) fn open(_name: &str) -> Result<Session, Error> {
        Err(outside())
    }

    pub(crate) fn compute<'a>(
        session: &Session,
        _inputs: impl Iterator<Item = (&'a str, &'a Tensor)>,
    ) -> Result<Vec<(String, Tensor)>, Error> {
        match *session {}
    }

    fn outside() -> Error {
        Error::unsupported("this works only inside Ringfence; try `ringfence serve --model`")
    }
}
