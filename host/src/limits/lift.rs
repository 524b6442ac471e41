//! A limit taken away, so that a test can be seen to notice.
//!
//! The product's program never does. The tests' own does, by one name, before it
//! is a host; in the tests of this crate the environment says it.

use super::Limits;
use std::sync::OnceLock;
use std::time::Duration;

static LIFTED: OnceLock<String> = OnceLock::new();

/// What no test lasts, and longer than any limit.
const FOR_EVER: Duration = Duration::from_hours(24);

/// Takes a limit away from everything that this process begins from now on. The
/// first one stays.
pub fn lift(name: &str) {
    LIFTED.get_or_init(|| name.to_owned());
}

/// The name of the limit that is taken away, or nothing.
pub(crate) fn lifted() -> &'static str {
    #[cfg(test)]
    LIFTED.get_or_init(|| std::env::var("RINGFENCE_LIFT").unwrap_or_default());
    LIFTED.get().map_or("", String::as_str)
}

/// What is no limit: large, and not so large that sums overflow.
pub(crate) trait Much: Copy {
    const MUCH: Self;
}

impl Much for usize {
    const MUCH: Self = 1 << 40;
}

impl Much for u64 {
    const MUCH: Self = 1 << 40;
}

impl Much for u32 {
    const MUCH: Self = 1 << 30;
}

impl Much for f64 {
    const MUCH: Self = 1e9;
}

impl Much for Duration {
    const MUCH: Self = FOR_EVER;
}

/// `value`, or what is none where the limit of this name is taken away. The name
/// is that of `tests/limits-bite`.
pub(crate) fn limit<T: Much>(name: &str, value: T) -> T {
    if lifted() == name { T::MUCH } else { value }
}

impl Limits {
    /// Without the one that is taken away, if it is one of these.
    pub(crate) fn lifted(mut self) -> Self {
        // Large, and not so large that the machine itself is the limit.
        const MUCH: usize = 1 << 20;
        match lifted() {
            "cpu" => self.cpu_millis = 1_000_000,
            "fuel" => self.fuel_per_call_max = None,
            "memory" => self.memory_bytes_max = 3 << 30,
            "call_timeout" => self.call_timeout = FOR_EVER,
            "unread_timeout" => self.unread_timeout = FOR_EVER,
            "concurrency" => self.concurrency_max = MUCH,
            "queue" => self.queue_max = MUCH,
            "output_bytes" => self.output_bytes_max = 1 << 32,
            "handles" => self.handles_max = 1 << 30,
            "wasi_handles" => self.wasi_handles_max = 1 << 30,
            "error_text" => self.error_text_bytes_max = 1 << 30,
            "random_bytes" => self.random_bytes_max = 1 << 26,
            "stack" => self.stack_bytes = 0,
            "table_elements" => self.table_elements_max = usize::MAX,
            "log_lines" => self.log_lines_per_call_max = u32::MAX,
            "log_bytes" => self.log_bytes_per_call_max = usize::MAX,
            "log_line_bytes" => self.log_line_bytes_max = usize::MAX / 2,
            "messages_buffered" => self.messages_buffered_max = MUCH,
            "outputs_buffered" => self.outputs_buffered_max = MUCH,
            _ => {}
        }
        self
    }
}
