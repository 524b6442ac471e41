//! When a deployment's replicas are started and stopped.

use std::time::Duration;

/// How many replicas there are, and when their number changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Autoscale {
    /// So many always run.
    pub replicas_min: u32,
    /// And never more than so many.
    pub replicas_max: u32,
    /// One more is started when calls have waited for so long.
    pub scale_up_delay: Duration,
    /// One is stopped when the others would have done for so long.
    pub scale_down_delay: Duration,
    /// The last one is stopped when nobody has called for so long, where none has
    /// to run.
    pub scale_to_zero_delay: Duration,
}

impl Autoscale {
    /// Of a model that nobody has deployed: one replica while it is called.
    pub const DEFAULT: Self = Self {
        replicas_min: 0,
        replicas_max: 1,
        scale_up_delay: Duration::ZERO,
        scale_down_delay: Duration::from_secs(300),
        scale_to_zero_delay: Duration::from_secs(300),
    };
}
