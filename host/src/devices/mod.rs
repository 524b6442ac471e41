//! Accelerators: which ones this machine has, which of them would do for a model, and who
//! has which.
//!
//! Owns that a device is one replica's at a time: what one model has left in its memory
//! is never another's to read.

mod cuda;
mod nvml;

pub use cuda::Cuda;

use crate::limits::Accelerators;
use globset::{GlobBuilder, GlobSet, GlobSetBuilder};
use rustix::fs::{Access, access};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

/// A device that graphs are computed on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Device {
    /// What the driver calls it for good, such as `GPU-` and a UUID.
    pub id: String,
    /// Its name as `accelerator_type` is compared with it, such as `NVIDIA-A10G`.
    pub name: String,
    /// Bytes of its memory.
    pub memory_bytes: u64,
    /// What it can do, as CUDA numbers that: its compute capability, such as 9 and 0.
    pub capability: Option<(u32, u32)>,
    /// The files of the system by which it is reached.
    pub nodes: Vec<PathBuf>,
}

impl Device {
    /// One that the driver names in its own words, such as `NVIDIA A10G`.
    fn named(id: String, words: &str, memory_bytes: u64) -> Self {
        let name = words.split_whitespace().collect::<Vec<_>>().join("-");
        Self { id, name, memory_bytes, capability: None, nodes: Vec::new() }
    }

    /// Why its nodes cannot be opened, if they cannot.
    fn problem(&self) -> Option<String> {
        let closed = |node: &&PathBuf| access(*node, Access::READ_OK | Access::WRITE_OK).err();
        let (node, errno) = self.nodes.iter().find_map(|node| Some((node, closed(&node)?)))?;
        Some(format!("{} cannot be reached: {}: {errno}", self.name, node.display()))
    }

    /// Whether it is one of what was asked for.
    fn is(&self, asked: &Accelerators) -> bool {
        let types = &asked.types;
        let is_of_type = types.is_empty() || types.iter().any(|glob| matches(glob, &self.name));
        is_of_type && asked.memory_bytes.is_none_or(|bytes| bytes <= self.memory_bytes)
    }
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Rounded down: who asks for so much is given it.
        write!(f, "{} with {}Mi", self.name, self.memory_bytes >> 20)
    }
}

/// Patterns that are told together, at most.
pub(crate) const PATTERNS_MAX: usize = 64;

/// Longest pattern of a name, and most alternatives of one: what reads patterns goes down for
/// each of these.
const PATTERN_BYTES_MAX: usize = 128;
const PATTERN_BRACES_MAX: usize = 4;

/// What a pattern stands for, whatever is upper case and what lower, if it is one.
fn pattern(text: &str) -> Option<GlobSet> {
    let braces = text.matches('{').count();
    // It stands in lines of the log as it is.
    if text.is_empty()
        || text.contains(char::is_control)
        || text.len() > PATTERN_BYTES_MAX
        || braces > PATTERN_BRACES_MAX
    {
        return None;
    }
    let glob = GlobBuilder::new(text).case_insensitive(true).build().ok()?;
    GlobSetBuilder::new().add(glob).build().ok()
}

/// Why a text cannot be one of `accelerator_type`, if it cannot.
pub fn problem_of_pattern(text: &str) -> Option<String> {
    pattern(text).is_none().then(|| {
        format!(
            "is no pattern for the names of devices; write a name or a part of one with `*`, at \
             most {PATTERN_BYTES_MAX} bytes long, such as \"NVIDIA-*\""
        )
    })
}

/// Whether a name is what a pattern stands for. None is what something stands for that is
/// no pattern.
fn matches(text: &str, name: &str) -> bool {
    pattern(text).is_some_and(|pattern| pattern.is_match(name))
}

/// The variable that CUDA goes by: ids of devices.
const VISIBLE: &str = "CUDA_VISIBLE_DEVICES";

/// The one by which the driver writes nothing of what it compiles.
const CACHES_NOTHING: &str = "CUDA_CACHE_DISABLE";

/// The one by which CUDA's libraries multiply floats of 32 bits as such, and not as TF32, which
/// has 19 of them.
const SHORT_FLOATS: &str = "NVIDIA_TF32_OVERRIDE";

/// Where programs keep what they could make again.
const CACHE: &str = "XDG_CACHE_HOME";

static STAND_INS: OnceLock<StandIns> = OnceLock::new();

/// Devices that there are none of.
#[derive(Debug)]
pub struct StandIns {
    /// Those.
    pub devices: Vec<Device>,
    /// What a process has of the memory of one.
    pub held_by: fn(&Device, u32) -> Option<u64>,
}

/// Has this process pretend that the machine has these and no others. The product's program
/// never does; the tests' own does. The first ones stay.
pub fn stand_in(devices: StandIns) {
    STAND_INS.get_or_init(|| devices);
}

/// Has the driver show this process these devices alone, in their order, once it is loaded.
/// No other thread may have been started.
#[allow(
    unsafe_code,
    reason = "JUSTIFICATION: the driver has no other way to be told before it begins"
)]
pub fn see_only<'a>(devices: impl IntoIterator<Item = &'a Device>) {
    let ids: Vec<&str> = devices.into_iter().map(|device| device.id.as_str()).collect();
    // SAFETY: there is no other thread that could look at variables meanwhile.
    unsafe { std::env::set_var(VISIBLE, ids.join(",")) };
    for (name, value) in [(CACHES_NOTHING, "1"), (SHORT_FLOATS, "0")] {
        // SAFETY: as above.
        unsafe { std::env::set_var(name, value) };
    }
}

/// Has engines find in this folder what was compiled for devices. No other thread may have
/// been started.
#[allow(unsafe_code, reason = "JUSTIFICATION: they are told in no other way")]
pub fn find_compiled_in(folder: &Path) {
    // SAFETY: there is no other thread that could look at variables meanwhile.
    unsafe { std::env::set_var(CACHE, folder) };
}

/// The devices of this machine.
#[derive(Debug, Clone, Default)]
pub struct Devices(Arc<All>);

#[derive(Debug, Default)]
struct All {
    devices: Vec<Device>,
    /// Why there are none.
    none: String,
    /// What there is, and why it cannot be reached.
    unreached: Vec<String>,
    places: Mutex<Vec<Place>>,
}

impl All {
    fn of(devices: Vec<Device>) -> Self {
        let places = Mutex::new(vec![Place::default(); devices.len()]);
        Self { devices, places, ..Self::default() }
    }
}

/// What becomes of a device.
#[derive(Debug, Clone, Copy, Default)]
struct Place {
    is_taken: bool,
    /// How often it has failed.
    failures: u32,
}

/// Devices that somebody has as long as this, or a copy of it, lives.
#[derive(Debug, Clone, Default)]
pub struct Given(Arc<Places>);

#[derive(Debug, Default)]
struct Places {
    all: Devices,
    places: Vec<usize>,
}

/// Why nobody is given what was asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoDevice {
    /// This machine has none that would do, or not as many.
    #[error("{asked} asked for, and this host has {there}")]
    Absent {
        /// What was asked for.
        asked: String,
        /// What there is.
        there: String,
    },
    /// Others have them.
    #[error("{asked} asked for, and others have what would do: {there}")]
    Taken {
        /// What was asked for.
        asked: String,
        /// What there is.
        there: String,
    },
}

impl NoDevice {
    /// Whether nothing would help that somebody gives back.
    pub fn is_for_ever(&self) -> bool {
        match self {
            Self::Absent { .. } => true,
            Self::Taken { .. } => false,
        }
    }
}

impl Devices {
    /// These.
    pub fn of(devices: Vec<Device>) -> Self {
        Self(Arc::new(All::of(devices)))
    }

    /// Those of them that can be reached.
    pub fn reached_of(devices: Vec<Device>) -> Self {
        let (mut reached, mut unreached) = (Vec::new(), Vec::new());
        for device in devices {
            match device.problem() {
                None => reached.push(device),
                Some(problem) => unreached.push(problem),
            }
        }
        let none = unreached.join(", ");
        Self(Arc::new(All { none, unreached, ..All::of(reached) }))
    }

    /// Those that the machine's driver knows of and that can be reached; none where there is no
    /// driver.
    pub fn of_this_machine() -> Self {
        let found = match STAND_INS.get() {
            Some(stand_ins) => Ok(stand_ins.devices.clone()),
            None => nvml::devices(),
        };
        match found {
            Ok(devices) => Self::reached_of(devices),
            Err(none) => Self::withheld(none),
        }
    }

    /// None, for a reason.
    pub fn withheld(why: String) -> Self {
        Self(Arc::new(All { none: why, ..All::default() }))
    }

    /// Which ones the driver knows of that cannot be reached, each with why.
    pub fn unreached(&self) -> &[String] {
        &self.0.unreached
    }

    /// All of them.
    pub fn all(&self) -> &[Device] {
        &self.0.devices
    }

    /// How many there are.
    pub fn count(&self) -> u32 {
        u32::try_from(self.0.devices.len()).unwrap_or(u32::MAX)
    }

    /// How many of them somebody has.
    pub fn taken(&self) -> u32 {
        let taken = self.places().iter().filter(|place| place.is_taken).count();
        u32::try_from(taken).unwrap_or(u32::MAX)
    }

    /// Whether so many of them would do, whoever has them now.
    pub fn check(&self, asked: &Accelerators) -> Result<(), NoDevice> {
        match self.fitting(asked).count() >= asked.count as usize {
            true => Ok(()),
            false => Err(NoDevice::Absent { asked: asked.to_string(), there: self.to_string() }),
        }
    }

    /// Gives somebody as many as asked for that would do, and that nobody has: those first
    /// that have failed least.
    pub fn give(&self, asked: &Accelerators) -> Result<Given, NoDevice> {
        self.check(asked)?;
        let mut all = self.places();
        let free = self.fitting(asked).filter_map(|place| {
            let Place { is_taken, failures } = *all.get(place)?;
            (!is_taken).then_some((failures, place))
        });
        let mut free: Vec<(u32, usize)> = free.collect();
        free.sort_unstable();
        let places = free.into_iter().take(asked.count as usize);
        let places: Vec<usize> = places.map(|(_, place)| place).collect();
        if places.len() < asked.count as usize {
            return Err(NoDevice::Taken { asked: asked.to_string(), there: self.to_string() });
        }
        change(&mut all, &places, |place| place.is_taken = true);
        drop(all);
        Ok(Given(Arc::new(Places { all: self.clone(), places })))
    }

    fn fitting(&self, asked: &Accelerators) -> impl Iterator<Item = usize> {
        let devices = self.0.devices.iter().enumerate();
        devices.filter(|(_, device)| device.is(asked)).map(|(place, _)| place)
    }

    fn places(&self) -> MutexGuard<'_, Vec<Place>> {
        self.0.places.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn change(all: &mut [Place], places: &[usize], change: impl Fn(&mut Place)) {
    for place in places {
        if let Some(place) = all.get_mut(*place) {
            change(place);
        }
    }
}

/// What there is, for whoever asked for something else.
impl fmt::Display for Devices {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let All { devices, none, .. } = &*self.0;
        if devices.is_empty() {
            f.write_str("no accelerator")?;
            return if none.is_empty() { Ok(()) } else { write!(f, " ({none})") };
        }
        let words: Vec<String> = devices.iter().map(Device::to_string).collect();
        f.write_str(&words.join(", "))
    }
}

impl Given {
    /// Bytes of their memory that a process has, all together, as far as the driver tells.
    /// Asks it, which takes a moment.
    pub fn held_by(&self, pid: u32) -> Option<u64> {
        let held = |device: &Device| match STAND_INS.get() {
            Some(stand_ins) => (stand_ins.held_by)(device, pid),
            None => nvml::held_by(&device.id, pid),
        };
        self.devices().filter_map(held).reduce(u64::saturating_add)
    }

    /// They have failed: others come before them from now on.
    pub fn have_failed(&self) {
        let Places { all, places } = &*self.0;
        change(&mut all.places(), places, |place| {
            place.failures = place.failures.saturating_add(1);
        });
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.places.is_empty()
    }

    /// Those that are given.
    pub fn devices(&self) -> impl Iterator<Item = &Device> {
        let Places { all, places } = &*self.0;
        places.iter().filter_map(|place| all.all().get(*place))
    }
}

/// The names that the driver has for good, and what they are called.
impl fmt::Display for Given {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words = self.devices().map(|device| format!("{} {}", device.name, device.id));
        f.write_str(&words.collect::<Vec<_>>().join(", "))
    }
}

impl Drop for Places {
    fn drop(&mut self) {
        change(&mut self.all.places(), &self.places, |place| place.is_taken = false);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;

    fn devices() -> Devices {
        let device = |id: &str, words, gib| Device::named(id.into(), words, gib * GIB);
        Devices::of(vec![
            device("a", "NVIDIA A10G", 23),
            device("b", "NVIDIA A10G", 23),
            device("c", "NVIDIA H100 80GB HBM3", 80),
        ])
    }

    fn asked(count: u32, types: &[&str], gib: Option<u64>) -> Accelerators {
        let types = types.iter().map(|glob| (*glob).to_owned()).collect();
        Accelerators { count, types, memory_bytes: gib.map(|gib| gib * GIB), topology: vec![] }
    }

    fn ids(given: &Given) -> String {
        given.devices().map(|device| device.id.as_str()).collect()
    }

    #[test]
    fn a_pattern_stands_for_the_names_of_devices() {
        for (glob, name) in [
            ("NVIDIA-*", "NVIDIA-A10G"),
            ("*", "NVIDIA-A10G"),
            ("NVIDIA-A10G", "NVIDIA-A10G"),
            ("nvidia-a10g", "NVIDIA-A10G"),
            ("*H100*", "NVIDIA-H100-80GB-HBM3"),
            ("NVIDIA-A?0G", "NVIDIA-A10G"),
            ("N*-*-*GB-*", "NVIDIA-H100-80GB-HBM3"),
            ("*aab", "aaab"),
            ("NVIDIA-{A10G,L40S}", "NVIDIA-L40S"),
        ] {
            assert!(matches(glob, name), "{glob} {name}");
        }
        for (glob, name) in [
            ("NVIDIA-A10", "NVIDIA-A10G"),
            ("A10G", "NVIDIA-A10G"),
            ("AMD-*", "NVIDIA-A10G"),
            ("NVIDIA-A??0G", "NVIDIA-A10G"),
            ("", "NVIDIA-A10G"),
            ("NVIDIA-[", "NVIDIA-["),
        ] {
            assert!(!matches(glob, name), "{glob} {name}");
        }
    }

    /// Whoever reads them would fall, or go down for ever.
    #[test]
    fn what_is_no_pattern_is_told_and_stands_for_nothing() {
        let nested = |levels: usize| format!("{}a{}", "{".repeat(levels), "}".repeat(levels));
        let long = "*a".repeat(65);
        let lines = "NVIDIA-*\nERROR".to_owned();
        for text in
            [nested(5), nested(300), nested(30_000), "NVIDIA-[".into(), long, lines, "".into()]
        {
            assert!(problem_of_pattern(&text).is_some(), "{text:.40}");
            assert!(!matches(&text, "a"), "{text:.40}");
        }
        assert_eq!(problem_of_pattern(&nested(4)), None);
        let longest = "*a".repeat(64);
        assert_eq!(problem_of_pattern(&longest), None);
        assert!(!matches(&longest, &format!("{}b", "a".repeat(4096))));
    }

    #[test]
    fn a_device_is_one_holders_at_a_time() {
        let devices = devices();
        let first = devices.give(&asked(1, &["NVIDIA-A10G"], None)).unwrap();
        let second = devices.give(&asked(1, &["NVIDIA-*"], None)).unwrap();
        assert_eq!((ids(&first).as_str(), ids(&second).as_str()), ("a", "b"));
        let taken = devices.give(&asked(1, &["NVIDIA-A10G"], None)).unwrap_err();
        assert!(!taken.is_for_ever(), "{taken}");
        assert_eq!(ids(&devices.give(&asked(1, &[], None)).unwrap()), "c");
        drop(first);
        assert_eq!(ids(&devices.give(&asked(2, &[], None)).unwrap()), "ac");
        assert_eq!(devices.give(&asked(0, &[], None)).unwrap().devices().count(), 0);
    }

    #[test]
    fn a_device_that_has_failed_comes_after_the_others() {
        let devices = devices();
        devices.give(&asked(1, &[], None)).unwrap().have_failed();
        assert_eq!(ids(&devices.give(&asked(1, &[], None)).unwrap()), "b");
        assert_eq!(ids(&devices.give(&asked(3, &[], None)).unwrap()), "bca");
        devices.give(&asked(3, &[], None)).unwrap().have_failed();
        assert_eq!(ids(&devices.give(&asked(1, &[], None)).unwrap()), "b");
    }

    #[test]
    fn what_is_not_there_is_named_with_what_is() {
        let refused = |asked: Accelerators| {
            let refused = devices().check(&asked).unwrap_err();
            assert!(refused.is_for_ever());
            refused.to_string()
        };
        let there = "NVIDIA-A10G with 23552Mi, NVIDIA-A10G with 23552Mi, NVIDIA-H100-80GB-HBM3 \
                     with 81920Mi";
        assert_eq!(
            refused(asked(1, &["NVIDIA-L40S", "AMD-*"], None)),
            format!(
                "1 accelerator of type NVIDIA-L40S or AMD-* asked for, and this host has {there}"
            )
        );
        let more = refused(asked(3, &["NVIDIA-A10G"], None));
        assert!(more.starts_with("3 accelerators of type NVIDIA-A10G asked for"), "{more}");
        let larger = refused(asked(1, &[], Some(81)));
        assert!(larger.starts_with("1 accelerator with 81Gi asked for"), "{larger}");
        let none = Devices::default().check(&asked(1, &[], None)).unwrap_err();
        assert_eq!(none.to_string(), "1 accelerator asked for, and this host has no accelerator");
    }
}
