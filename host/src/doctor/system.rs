//! The kernel, its clocks and the limits of this process.

use super::{Finding, Surroundings};
use crate::sandbox::{FUEL_VERSION, calibrate, calibration_id};
use rustix::process::{Resource, geteuid, getrlimit};
use rustix::time::{ClockId, clock_getres};
use std::time::Duration;

/// Files for a thousand connections and what guests open.
const FILES_MIN: u64 = 4096;
/// With fewer a host cannot even start.
const FILES_NEEDED: u64 = 128;

/// Coarser than this, deadlines become imprecise.
const CLOCK_RESOLUTION_MAX: Duration = Duration::from_millis(1);

/// This program was written after it: 2026-01-01.
const CLOCK_MIN: Duration = Duration::from_secs(1_767_225_600);

pub(super) fn examine(surroundings: &Surroundings) -> Vec<Finding> {
    vec![
        kernel(surroundings),
        monotonic_clock(),
        wall_clock(),
        fuel(surroundings),
        files(),
        core_dumps(surroundings),
        user(),
    ]
}

fn kernel(surroundings: &Surroundings) -> Finding {
    let release = surroundings.read("/proc/sys/kernel/osrelease");
    let release = release.unwrap_or_else(|| "of unknown version".to_owned());
    let found = format!("Linux {release} on {}", std::env::consts::ARCH);
    match std::env::consts::ARCH {
        "x86_64" => Finding::ok("kernel", found),
        _ => Finding::warn("kernel", found, "x86-64 is what is tested; use that to be sure"),
    }
}

fn monotonic_clock() -> Finding {
    let resolution = clock_getres(ClockId::Monotonic);
    let nanos = u64::try_from(resolution.tv_nsec).unwrap_or(0);
    let seconds = u64::try_from(resolution.tv_sec).unwrap_or(0);
    let resolution = Duration::from_secs(seconds) + Duration::from_nanos(nanos);
    let found = format!("counts in steps of {resolution:?}");
    match resolution > CLOCK_RESOLUTION_MAX {
        true => Finding::warn(
            "monotonic clock",
            found,
            "deadlines are no more exact than this; a kernel with high-resolution timers is",
        ),
        false => Finding::ok("monotonic clock", found),
    }
}

/// What `cpu_limit` becomes as the ceiling of a call: what the host of the data
/// directory has measured, if it has.
fn fuel(surroundings: &Surroundings) -> Finding {
    let of_host = || {
        let id = calibration_id().ok()?;
        crate::store::calibration_of(&surroundings.data_dir, &id)
    };
    let (measured, by) = match of_host() {
        Some(fuel) => (Ok(fuel), "as the host measured at its first start here"),
        None => (calibrate(), "as measured now; a host does so at its first start"),
    };
    match measured {
        Ok(fuel) => Finding::ok(
            "fuel",
            format!("v{FUEL_VERSION}, {:.2}e9 in a second of CPU time, {by}", fuel as f64 / 1e9),
        ),
        Err(error) => Finding::fail(
            "fuel",
            format!("this program runs no guest here: {error}"),
            "use the build for this kind of machine",
        ),
    }
}

fn wall_clock() -> Finding {
    match crate::clock::since_1970() < CLOCK_MIN {
        true => Finding::warn(
            "wall clock",
            "is before this program was written",
            "set it; certificates and the times in logs depend on it, deadlines do not",
        ),
        false => Finding::ok("wall clock", "is plausible"),
    }
}

fn files() -> Finding {
    let limit = getrlimit(Resource::Nofile).maximum;
    let found = match limit {
        Some(limit) => format!("{limit} at most; `serve` takes them all"),
        None => "without a limit".to_owned(),
    };
    let advice = format!("raise the hard limit to {FILES_MIN}: `LimitNOFILE=` or limits.conf");
    match limit.unwrap_or(u64::MAX) {
        FILES_MIN.. => Finding::ok("open files", found),
        FILES_NEEDED.. => Finding::warn("open files", found, advice),
        _ => Finding::fail("open files", found, advice),
    }
}

fn core_dumps(surroundings: &Surroundings) -> Finding {
    let here = match getrlimit(Resource::Core).current {
        Some(0) => "off here",
        _ => "on here",
    };
    let handler = match surroundings.read("/proc/sys/kernel/core_pattern") {
        Some(pattern) if pattern.starts_with('|') => "; a program takes those of this machine",
        _ => "",
    };
    Finding::ok("core dumps", format!("{here}; `serve` switches its own off{handler}"))
}

fn user() -> Finding {
    match geteuid().is_root() {
        true => Finding::warn("user", "root", "run the host as a user of its own"),
        false => Finding::ok("user", format!("{}, which is not root", geteuid().as_raw())),
    }
}
