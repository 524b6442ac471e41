//! What was done to a host, by whom: one JSON line each, only ever appended.

use super::{Store, StoreError, now, private};
use crate::limits::limit;
use serde_json::{Map, Value};
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

const FILE: &str = "audit.log";

/// Length after which the file is set aside and another begun.
const FILE_BYTES_MAX: u64 = 16 << 20;

/// The log, open.
#[derive(Debug)]
pub(super) struct Audit {
    path: PathBuf,
    file: Mutex<(File, u64)>,
}

impl Audit {
    pub(super) fn open(data_dir: &Path) -> Result<Self, StoreError> {
        let path = data_dir.join(FILE);
        let file = open(&path)?;
        Ok(Self { path, file: Mutex::new(file) })
    }

    fn append(&self, line: &[u8]) -> Result<(), StoreError> {
        let error = |source| StoreError::File { path: self.path.clone(), source };
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        if file.1 + line.len() as u64 > limit("audit_bytes", FILE_BYTES_MAX) {
            // Set aside under the time; who keeps audit logs moves them away.
            let aside = self.path.with_file_name(format!("audit-{}.log", now()));
            std::fs::rename(&self.path, &aside).map_err(error)?;
            *file = open(&self.path)?;
        }
        if let Err(source) = file.0.write_all(line) {
            // Half a line would spoil the next one.
            let _ = file.0.set_len(file.1);
            return Err(error(source));
        }
        file.0.sync_data().map_err(error)?;
        file.1 += line.len() as u64;
        Ok(())
    }
}

fn open(path: &Path) -> Result<(File, u64), StoreError> {
    let file = private::open(path, OpenOptions::new().create(true).append(true))?;
    let length =
        file.metadata().map_err(|source| StoreError::File { path: path.to_owned(), source })?.len();
    Ok((file, length))
}

impl Store {
    /// Appends a line: when, who, what, and about what. Never a secret.
    pub fn audit(&self, who: &str, what: &str, about: &[(&str, &str)]) -> Result<(), StoreError> {
        let mut line = Map::new();
        line.insert("at".to_owned(), now().into());
        line.insert("by".to_owned(), who.into());
        line.insert("did".to_owned(), what.into());
        for (key, value) in about {
            line.insert((*key).to_owned(), (*value).into());
        }
        let mut line = Value::Object(line).to_string();
        line.push('\n');
        self.audit.append(line.as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tempfile::TempDir;

    #[test]
    fn lines_are_appended_and_a_long_log_is_set_aside() {
        let dir = TempDir::new().unwrap();
        let audit = Audit::open(dir.path()).unwrap();
        audit.append(b"{}\n").unwrap();
        drop(audit);
        let audit = Audit::open(dir.path()).unwrap();
        audit.append(b"{}\n").unwrap();
        assert_eq!(std::fs::read(dir.path().join(FILE)).unwrap(), b"{}\n{}\n");
        audit.file.lock().unwrap().1 = FILE_BYTES_MAX;
        audit.append(b"{}\n").unwrap();
        assert_eq!(std::fs::read(dir.path().join(FILE)).unwrap(), b"{}\n");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 2);
    }
}
