//! The data directory: whose it is, what space it has, and who uses it.

use super::{Finding, Surroundings};
use crate::store::{self, DataDir, StoreError};
use crate::yaml::bytes_text;
use rustix::fs::statvfs;
use std::error::Error;

/// Less than this is soon full of models.
const SPACE_BYTES_MIN: u64 = 1 << 30;

pub(super) fn examine(surroundings: &Surroundings) -> Vec<Finding> {
    vec![permissions(surroundings), space(surroundings)]
}

fn permissions(surroundings: &Surroundings) -> Finding {
    let topic = "data directory";
    let path = surroundings.data_dir.display();
    match store::inspect(&surroundings.data_dir) {
        Ok(DataDir::NotThere) => {
            Finding::ok(topic, format!("{path} is not there; `serve` makes it"))
        }
        Ok(DataDir::Free) => {
            Finding::ok(topic, format!("{path} is this user's, no host runs on it"))
        }
        Err(StoreError::InUse { .. }) => Finding::ok(topic, format!("a host runs on {path}")),
        Err(error @ StoreError::Permissions { .. }) => {
            let text = error.to_string();
            let (found, advice) = text.split_once("; ").unwrap_or((&text, "see there"));
            Finding::fail(topic, found, advice)
        }
        Err(error) => {
            let why = error.source().map_or(String::new(), |source| format!(" ({source})"));
            let advice = "give another with --data-dir, or make it this user's";
            Finding::fail(topic, format!("{path} cannot be used{why}"), advice)
        }
    }
}

fn space(surroundings: &Surroundings) -> Finding {
    let topic = "free space";
    let folder = std::path::absolute(&surroundings.data_dir);
    let folder = folder.unwrap_or_else(|_| surroundings.data_dir.clone());
    let there = folder.ancestors().find(|folder| folder.exists());
    let Some(Ok(disk)) = there.map(statvfs) else {
        return Finding::warn(topic, "is not known", "look at the disk of the data directory");
    };
    let bytes = disk.f_bavail.saturating_mul(disk.f_frsize);
    let found = format!("{} for the data directory", bytes_text(bytes >> 20 << 20));
    match bytes < SPACE_BYTES_MIN {
        true => Finding::warn(topic, found, "make room; models are kept there"),
        false => Finding::ok(topic, found),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Verdict;
    use crate::doctor::tests::Root;
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_data_directory_is_looked_at_and_never_made() {
        let root = Root::with(&[]);
        let surroundings = root.surroundings();
        let found = || permissions(&surroundings);
        assert!(found().found.ends_with("`serve` makes it"), "{:?}", found());
        assert!(!surroundings.data_dir.exists());
        std::fs::create_dir(&surroundings.data_dir).unwrap();
        assert!(found().found.ends_with("no host runs on it"));
        assert!(std::fs::read_dir(&surroundings.data_dir).unwrap().next().is_none());
        std::fs::set_permissions(&surroundings.data_dir, Permissions::from_mode(0o777)).unwrap();
        assert_eq!(found().verdict, Verdict::Fail);
        assert!(found().advice.starts_with("run `chmod 700"), "{:?}", found());
        std::fs::set_permissions(&surroundings.data_dir, Permissions::from_mode(0o700)).unwrap();
        let store = store::Store::open(&surroundings.data_dir).unwrap();
        assert!(found().found.starts_with("a host runs on"), "{:?}", found());
        drop(store);
        assert!(found().found.ends_with("no host runs on it"));
        std::fs::remove_dir_all(&surroundings.data_dir).unwrap();
        std::fs::write(&surroundings.data_dir, "a file").unwrap();
        assert_eq!(found().verdict, Verdict::Fail);
        assert!(space(&surroundings).found.ends_with("for the data directory"));
    }
}
