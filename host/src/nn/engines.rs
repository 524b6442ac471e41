//! The engines of a process, and which of them runs a graph.

use super::beside::BesideGraph;
use super::devices;
use super::engine::{Engine, Graph, LoadError, Means, OnDevices};
use super::onnx::{self, Scan};
use super::onnxruntime::OnnxRuntime;
use super::tract::Tract;
use crate::limits::{EngineName, Limits};
use crate::package::{Assets, GraphFile};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

/// The engines that there are, in the order in which a graph is offered to them.
#[derive(Clone)]
pub struct Engines {
    engines: Arc<[Arc<dyn Engine>]>,
    /// What those compute on that do not on CPUs.
    devices: Option<OnDevices>,
    /// Why the first of those is not there that there are to be.
    missing: Option<String>,
}

impl Default for Engines {
    fn default() -> Self {
        Self::of([Arc::new(Tract) as Arc<dyn Engine>])
    }
}

impl Engines {
    /// These, in this order.
    pub fn of(engines: impl IntoIterator<Item = Arc<dyn Engine>>) -> Self {
        Self { engines: engines.into_iter().collect(), devices: None, missing: None }
    }

    /// Those of a process that has ONNX Runtime, or not, and computes on these devices, if
    /// there are any.
    pub fn of_process(onnxruntime: Option<OnnxRuntime>, devices: Option<&OnDevices>) -> Self {
        let onnxruntime = onnxruntime.map(|engine| match devices {
            Some(devices) => engine.on(devices),
            None => engine,
        });
        let (first, missing) = match devices.map(devices::engine_on).transpose() {
            Ok(engine) => (engine, None),
            Err(why) => (None, Some(why)),
        };
        let second = onnxruntime.map(|engine| Arc::new(engine) as Arc<dyn Engine>);
        let all = first.into_iter().chain(second).fold(Self::default(), Self::and);
        Self { devices: devices.cloned(), missing, ..all }
    }

    /// What is computed on beside CPUs.
    pub(crate) fn devices(&self) -> Option<&OnDevices> {
        self.devices.as_ref()
    }

    /// The same, and one more that comes last.
    #[must_use]
    pub fn and(self, engine: Arc<dyn Engine>) -> Self {
        let engines = self.engines.iter().cloned().chain([engine]).collect();
        Self { engines, ..self }
    }

    /// What runs a graph: the engine that the author asks for, else the first one that has
    /// all of its operators. It is one that computes on accelerators where there are to be
    /// any, and on CPUs where there are not. Also what the scan has found.
    pub(super) fn for_graph(
        &self,
        limits: &Limits,
        file: &GraphFile,
        content: &[u8],
    ) -> Result<(&Arc<dyn Engine>, Scan), LoadError> {
        let (asked, count) = (limits.engine, limits.accelerators.count);
        let none = || LoadError::NoEngine {
            name: file.name.clone(),
            asked: asked.map_or("none", EngineName::as_str),
            there: self.engines.iter().map(|engine| engine.name()).collect::<Vec<_>>().join(", "),
        };
        let is_asked =
            |engine: &&Arc<dyn Engine>| asked.is_none_or(|asked| asked.as_str() == engine.name());
        let mut refused = None;
        let mut on_cpu = Vec::new();
        for engine in self.engines.iter().filter(is_asked) {
            match engine.devices_max() {
                None if count > 0 => {
                    on_cpu.push(engine.name());
                    continue;
                }
                Some(_) if count == 0 => continue,
                Some(most) if count > most => {
                    let (name, engine) = (file.name.clone(), engine.name());
                    refused.get_or_insert(LoadError::Devices { name, engine, count, most });
                    continue;
                }
                None | Some(_) => {}
            }
            match scan(engine.as_ref(), file, content) {
                Ok(found) => return Ok((engine, found)),
                // What the first one lacks is what the author has to know.
                Err(why) => refused = refused.or(Some(why)),
            }
        }
        if refused.is_none() && !on_cpu.is_empty() {
            let (name, engine) = (file.name.clone(), on_cpu.join(", "));
            return Err(LoadError::OnCpu { name, engine, why: self.missing.clone() });
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
        f.debug_list().entries(self.engines.iter().map(|engine| engine.name())).finish()
    }
}
