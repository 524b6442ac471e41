//! What a model learns from the host besides its inputs, and its log.

use std::fmt;

use crate::error::Error;

pub use crate::raw::ringfence::model::context::{AssetInfo, Level, ModelInfo};

/// How much of an asset is asked for at once, in bytes.
const PIECE_BYTES: u32 = 1 << 20;

/// The model's id, version and type, the concepts of its `config.yaml`, and
/// the names of its graphs and assets.
pub fn model_info() -> ModelInfo {
    crate::host::model()
}

/// A whole file of the package: every file below `1/` that is neither code
/// nor graph, by its path below `1/`. An error names the assets there are.
pub fn asset(name: &str) -> Result<Vec<u8>, Error> {
    let size = asset_size(name)?;
    let mut bytes = Vec::new();
    bytes.try_reserve_exact(size).map_err(|_| {
        Error::failed(format!("asset `{name}` of {size} bytes does not fit into memory"))
    })?;
    while bytes.len() < size {
        let piece = asset_piece(name, bytes.len() as u64, PIECE_BYTES)?;
        if piece.is_empty() {
            return Err(Error::failed(format!(
                "asset `{name}` ended after {} of {size} bytes",
                bytes.len()
            )));
        }
        bytes.extend_from_slice(&piece);
    }
    Ok(bytes)
}

/// A whole file of the package that is UTF-8 text.
pub fn asset_text(name: &str) -> Result<String, Error> {
    String::from_utf8(asset(name)?)
        .map_err(|error| Error::failed(format!("asset `{name}`: {}", error.utf8_error())))
}

/// At most `length` bytes of an asset from `offset` on, fewer at its end: for
/// files that are read in part or are larger than memory.
pub fn asset_piece(name: &str, offset: u64, length: u32) -> Result<Vec<u8>, Error> {
    crate::host::asset(name, offset, length)
        .map_err(|error| error.context(format_args!("asset `{name}`")))
}

fn asset_size(name: &str) -> Result<usize, Error> {
    let info = model_info();
    let Some(AssetInfo { size, .. }) = info.assets.iter().find(|asset| asset.name == name) else {
        let names: Vec<&str> = info.assets.iter().map(|asset| asset.name.as_str()).collect();
        return Err(Error::failed(format!(
            "there is no asset `{name}`; the package has {}",
            if names.is_empty() { "none".into() } else { names.join(", ") }
        )));
    };
    usize::try_from(*size)
        .map_err(|_| Error::failed(format!("asset `{name}` of {size} bytes is too large")))
}

/// Writes a line to the model's log; [`debug!`](crate::debug), [`info!`],
/// [`warn!`](crate::warn) and [`error!`](crate::error) are shorter. Lines are
/// cut at a limit, and a model that logs too much has lines dropped.
///
/// [`info!`]: crate::info
pub fn log(level: Level, message: fmt::Arguments<'_>) {
    match message.as_str() {
        Some(message) => crate::host::log(level, message),
        None => crate::host::log(level, &message.to_string()),
    }
}

/// Logs what only the model's author wants to know; takes what `format!` takes.
#[macro_export]
macro_rules! debug {
    ($($message:tt)*) => { $crate::log($crate::Level::Debug, ::core::format_args!($($message)*)) };
}

/// Logs what happened; takes what `format!` takes.
#[macro_export]
macro_rules! info {
    ($($message:tt)*) => { $crate::log($crate::Level::Info, ::core::format_args!($($message)*)) };
}

/// Logs what somebody should look at; takes what `format!` takes.
#[macro_export]
macro_rules! warn {
    ($($message:tt)*) => { $crate::log($crate::Level::Warn, ::core::format_args!($($message)*)) };
}

/// Logs what went wrong; takes what `format!` takes.
#[macro_export]
macro_rules! error {
    ($($message:tt)*) => { $crate::log($crate::Level::Error, ::core::format_args!($($message)*)) };
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_missing_asset_is_named() {
        let error = crate::asset("no-such-file").unwrap_err();
        assert!(error.message().contains("no asset `no-such-file`"));
    }
}
