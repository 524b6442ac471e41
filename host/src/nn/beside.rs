//! The files of a package that a graph keeps data in.

use super::engine::Beside;
use super::onnx::External;
use crate::package::Assets;

/// Those beside one graph.
pub(super) struct BesideGraph<'a> {
    pub(super) assets: &'a Assets,
    /// Where the graph is below `1/`, with a `/` at its end; empty for `1/` itself.
    pub(super) folder: &'a str,
}

impl Beside for BesideGraph<'_> {
    fn read(&self, external: &External) -> Result<Vec<u8>, String> {
        let name = format!("{}{}", self.folder, external.location);
        self.assets.read(&name, external.offset, external.bytes)
    }
}
