//! What a guest asked of the host, counted.

use serde::{Deserialize, Serialize};
use std::fmt;

/// A function of the host that a guest may call, or a few that are alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "each is named by `as_str`")]
pub enum HostCall {
    Model,
    Log,
    Asset,
    Next,
    Send,
    Tensor,
    LoadGraph,
    Compute,
    Clock,
    Random,
}

impl HostCall {
    /// Every kind, in the order of the discriminants.
    pub const ALL: [Self; 10] = [
        Self::Model,
        Self::Log,
        Self::Asset,
        Self::Next,
        Self::Send,
        Self::Tensor,
        Self::LoadGraph,
        Self::Compute,
        Self::Clock,
        Self::Random,
    ];

    /// As the world and its imports name it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Model => "context: model",
            Self::Log => "context: log",
            Self::Asset => "context: asset",
            Self::Next => "streams: source.next",
            Self::Send => "streams: sink.send",
            Self::Tensor => "wasi:nn: tensor",
            Self::LoadGraph => "wasi:nn: load-by-name",
            Self::Compute => "wasi:nn: compute",
            Self::Clock => "wasi:clocks: now",
            Self::Random => "wasi:random: get",
        }
    }
}

/// How often each was called.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct HostCalls([u64; HostCall::ALL.len()]);

impl HostCalls {
    /// Counts some more.
    pub fn add(&mut self, call: HostCall, times: u64) {
        if let Some(count) = self.0.get_mut(call as usize) {
            *count = count.saturating_add(times);
        }
    }

    /// Those that were called at all.
    pub fn iter(&self) -> impl Iterator<Item = (HostCall, u64)> {
        HostCall::ALL.into_iter().zip(self.0).filter(|(_, times)| *times > 0)
    }
}

impl fmt::Display for HostCalls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (call, times)) in self.iter().enumerate() {
            let comma = if index == 0 { "" } else { ", " };
            write!(f, "{comma}{} {times}", call.as_str())?;
        }
        Ok(())
    }
}
