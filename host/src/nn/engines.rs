//! The engines of a process, and which of them runs a graph.

use super::beside::BesideGraph;
use super::engine::{Engine, Graph, LoadError, Means};
use super::onnx::{self, Scan};
use super::tract::Tract;
use crate::limits::EngineName;
use crate::package::{Assets, GraphFile};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

/// The engines that there are, in the order in which a graph is offered to them.
#[derive(Clone)]
pub struct Engines(Arc<[Arc<dyn Engine>]>);

impl Default for Engines {
    fn default() -> Self {
        Self::of([Arc::new(Tract) as Arc<dyn Engine>])
    }
}

impl Engines {
    /// These, in this order.
    pub fn of(engines: impl IntoIterator<Item = Arc<dyn Engine>>) -> Self {
        Self(engines.into_iter().collect())
    }

    /// The same, and one more that comes last.
    #[must_use]
    pub fn and(self, engine: Arc<dyn Engine>) -> Self {
        Self::of(self.0.iter().cloned().chain([engine]))
    }

    /// What runs a graph: the engine that the author asks for, else the first one that has
    /// all of its operators. Also what the scan has found.
    pub(super) fn for_graph(
        &self,
        asked: Option<EngineName>,
        file: &GraphFile,
        content: &[u8],
    ) -> Result<(&Arc<dyn Engine>, Scan), LoadError> {
        let none = || LoadError::NoEngine {
            name: file.name.clone(),
            asked: asked.map_or("none", EngineName::as_str),
            there: self.0.iter().map(|engine| engine.name()).collect::<Vec<_>>().join(", "),
        };
        let is_asked =
            |engine: &&Arc<dyn Engine>| asked.is_none_or(|asked| asked.as_str() == engine.name());
        let mut refused = None;
        for engine in self.0.iter().filter(is_asked) {
            match scan(engine.as_ref(), file, content) {
                Ok(found) => return Ok((engine, found)),
                // What the first one lacks is what the author has to know.
                Err(why) => refused = refused.or(Some(why)),
            }
        }
        Err(refused.unwrap_or_else(none))
    }
}

fn scan(engine: &dyn Engine, file: &GraphFile, content: &[u8]) -> Result<Scan, LoadError> {
    onnx::scan(content, &|domain, operator| engine.has(domain, operator))
        .map_err(|why| LoadError::Refused { name: file.name.clone(), why })
}

/// Loads a graph. What makes an engine panic is a graph that it cannot load.
pub(super) fn load(
    engine: &dyn Engine,
    assets: &Assets,
    file: &GraphFile,
    content: &[u8],
    means: Means,
) -> Result<Arc<dyn Graph>, LoadError> {
    let beside = BesideGraph { assets, folder: &file.folder };
    let loading = AssertUnwindSafe(|| engine.load(&file.name, content, &beside, means));
    catch_unwind(loading).unwrap_or_else(|_| {
        Err(LoadError::Engine {
            engine: engine.name(),
            name: file.name.clone(),
            reason: "it panicked; the graph is broken, or uses what it cannot do".to_owned(),
        })
    })
}

impl std::fmt::Debug for Engines {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.0.iter().map(|engine| engine.name())).finish()
    }
}
