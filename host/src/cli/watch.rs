//! Doing something again whenever a model folder changes.
//!
//! Owns which changes count: not those that building itself makes.

use anyhow::Context;
use notify::{Event, EventKind, RecursiveMode, Watcher};
use std::io::Write;
use std::path::{Component, Path};
use std::sync::mpsc::sync_channel;
use std::time::Duration;

/// Editors write a file in several steps; this long is waited for the last.
const SETTLE: Duration = Duration::from_millis(200);

/// What building writes, by the first part of a path or by the whole.
const BUILT: [&str; 6] =
    ["target", ".git", "Cargo.lock", "checkpoints.lock", "1/model.wasm", "1/checkpoints"];

/// Works once, and again after each change, until the process is told to end.
/// What fails is told, and mended by the next change.
pub(super) fn run(dir: &Path, mut work: impl FnMut() -> anyhow::Result<()>) -> anyhow::Result<()> {
    let dir = dir.canonicalize().with_context(|| format!("cannot open {}", dir.display()))?;
    // One change is as good as many: what was not looked at yet stands for all.
    let (changed, changes) = sync_channel(1);
    let root = dir.clone();
    let mut watcher = notify::recommended_watcher(move |event: notify::Result<Event>| {
        if event.is_ok_and(|event| counts(&root, &event)) {
            let _ = changed.try_send(());
        }
    })?;
    watcher
        .watch(&dir, RecursiveMode::Recursive)
        .with_context(|| format!("cannot watch {}", dir.display()))?;
    loop {
        if let Err(error) = work() {
            super::report(&error);
        }
        writeln!(std::io::stderr().lock(), "note: waiting for a change in {}", dir.display())?;
        changes.recv()?;
        std::thread::sleep(SETTLE);
        while changes.try_recv().is_ok() {}
    }
}

fn counts(root: &Path, event: &Event) -> bool {
    !matches!(event.kind, EventKind::Access(_))
        && event.paths.iter().any(|path| path.strip_prefix(root).is_ok_and(is_source))
}

fn is_source(path: &Path) -> bool {
    let hidden = path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.'));
    let first = match path.components().next() {
        Some(Component::Normal(first)) => first.to_string_lossy().into_owned(),
        _ => return false,
    };
    !hidden && !first.starts_with('.') && !BUILT.iter().any(|built| path.starts_with(built))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_building_writes_is_no_change() {
        for path in [
            "target/release/x",
            "Cargo.lock",
            "1/model.wasm",
            "1/.model-x",
            ".git/index",
            ".checkpoints.new/config.json",
            "1/checkpoints/config.json",
            "checkpoints.lock",
        ] {
            assert!(!is_source(Path::new(path)), "{path}");
        }
        for path in ["1/model.rs", "config.yaml", "Cargo.toml", "1/net.onnx", "src/x.rs"] {
            assert!(is_source(Path::new(path)), "{path}");
        }
    }
}
