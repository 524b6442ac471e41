//! A copy of a data directory in one file, and a data directory made of one.
//!
//! Owns the form of the file: a tar that holds the database as it was at one
//! moment, the key, and every content that the database names. No token is in
//! it. Compiled components are not either; they are made anew.

use super::lock::Lock;
use super::{DATABASE, KEY, LOCK, Sha256Digest, Store, StoreError, blobs, private, schema};
use crate::text::hex;
use rusqlite::Connection;
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use tar::{Archive, Builder, EntryType, Header};

const FORMAT: &str = "ringfence-backup";
const FORMAT_VERSION: &str = "1\n";
const CONTENTS: &str = "contents/";
/// Names the newest backup, for whoever finds the database damaged.
const NEWEST: &str = "newest-backup";
const NEWEST_BYTES_MAX: u64 = 4 << 10;
const KEY_BYTES_MAX: u64 = 64;

/// A backup that was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackedUp {
    /// Its length.
    pub bytes: u64,
    /// What is wrong with contents that are therefore not in it.
    pub left_out: Vec<String>,
}

impl Store {
    /// Writes a backup, while everything goes on. The file has to be new, and
    /// nobody else can read it: the key is in it. A damaged content is no reason
    /// to have no backup of the others.
    pub fn backup(&self, path: &Path) -> Result<BackedUp, StoreError> {
        let error = |source| StoreError::Unwritable { path: path.to_owned(), source };
        let own = |source| StoreError::File { path: self.data_dir().to_owned(), source };
        if path.symlink_metadata().is_ok() {
            return Err(StoreError::Exists { what: format!("a file {}", path.display()) });
        }
        let path = &std::path::absolute(path).map_err(error)?;
        let folder = path.parent().unwrap_or(Path::new("/"));
        // Nothing that the copied database names is freed meanwhile.
        let _contents = self.contents.read().unwrap_or_else(|poisoned| poisoned.into_inner());
        let scratch = tempfile::tempdir_in(self.data_dir()).map_err(own)?;
        let database = scratch.path().join(DATABASE);
        schema::snapshot(&self.connection(), &self.database(), &database)?;

        let file =
            tempfile::Builder::new().prefix(".backup-").tempfile_in(folder).map_err(error)?;
        let mut tar = Builder::new(io::BufWriter::new(file.as_file()));
        add(&mut tar, FORMAT, FORMAT_VERSION.len() as u64, FORMAT_VERSION.as_bytes())
            .map_err(error)?;
        let copied = File::open(&database).map_err(own)?;
        let length = copied.metadata().map_err(own)?.len();
        add(&mut tar, DATABASE, length, copied).map_err(error)?;
        let key = private::read(&self.data_dir().join(KEY), KEY_BYTES_MAX)?.unwrap_or_default();
        add(&mut tar, KEY, key.len() as u64, key.as_slice()).map_err(error)?;
        let mut left_out = Vec::new();
        for (digest, bytes) in contents(&database)? {
            match self.blobs.check(&digest, bytes) {
                Ok(()) => {
                    let content = self.blobs.file(&digest)?;
                    add(&mut tar, &format!("{CONTENTS}{}", hex(&digest)), bytes, content)
                        .map_err(error)?;
                }
                Err(problem) => left_out.push(problem),
            }
        }
        let mut writer = tar.into_inner().map_err(error)?;
        writer.flush().map_err(error)?;
        drop(writer);
        file.as_file().sync_all().map_err(error)?;
        let length = file.as_file().metadata().map_err(error)?.len();
        file.persist_noclobber(path).map_err(|failed| error(failed.error))?;
        private::sync(folder)?;
        let newest = self.data_dir().join(NEWEST);
        // A whole one that is older has more.
        if left_out.is_empty() || !newest.exists() {
            private::write(&newest, path.as_os_str().as_encoded_bytes())?;
        }
        Ok(BackedUp { bytes: length, left_out })
    }

    /// Makes a data directory of a backup. The directory has to be empty or not
    /// there; one that cannot be made is left as it was. Returns what is missing
    /// or wrong in what was restored: the backup may have been made so.
    pub fn restore(path: &Path, data_dir: &Path) -> Result<Vec<String>, StoreError> {
        let was_there = data_dir.symlink_metadata().is_ok();
        private::directory(data_dir)?;
        let error = |source| StoreError::Directory { path: data_dir.to_owned(), source };
        if std::fs::read_dir(data_dir).map_err(error)?.next().is_some() {
            return Err(StoreError::NotEmpty { path: data_dir.to_owned() });
        }
        // Nobody starts a host there before all is in its place.
        let lock = Lock::take(data_dir, LOCK)?;
        let restored = fill(path, data_dir)
            .and_then(|()| Ok(Self::open_locked(data_dir, lock)?.check()?.problems));
        if restored.is_err()
            && let Err(error) = undo(data_dir, was_there)
        {
            tracing::warn!(%error, path = %data_dir.display(), "cannot remove what was restored");
        }
        restored
    }
}

/// Writes what is in a backup into a directory that is empty.
fn fill(path: &Path, data_dir: &Path) -> Result<(), StoreError> {
    let bad = |problem: String| StoreError::Backup { path: path.to_owned(), problem };
    let unreadable = |error: io::Error| bad(format!("it cannot be read: {error}"));
    let file = File::open(path).map_err(unreadable)?;
    let mut archive = Archive::new(io::BufReader::new(file));
    let mut expected = [FORMAT, DATABASE, KEY].into_iter();
    let mut contents = None;
    for entry in archive.entries().map_err(unreadable)?.raw(true) {
        let mut entry = match entry {
            Ok(entry) => entry,
            // What has come is restored; what is missing is found afterwards.
            Err(_) if expected.len() == 0 => break,
            Err(error) => return Err(unreadable(error)),
        };
        let name = String::from_utf8_lossy(&entry.header().path_bytes()).into_owned();
        let bytes = entry.header().size().map_err(unreadable)?;
        if entry.header().entry_type() != EntryType::Regular {
            return Err(bad(format!("{name:?} is no file")));
        }
        match expected.next() {
            Some(FORMAT) if name == FORMAT => {
                let mut version = String::new();
                let length = FORMAT_VERSION.len() as u64;
                entry.take(length + 1).read_to_string(&mut version).map_err(unreadable)?;
                if version != FORMAT_VERSION {
                    return Err(bad("it is of another version of this program".to_owned()));
                }
            }
            Some(DATABASE) if name == DATABASE => {
                let place = data_dir.join(DATABASE);
                private::touch(&place)?;
                let mut options = std::fs::OpenOptions::new();
                let mut database = private::open(&place, options.write(true))?;
                io::copy(&mut entry, &mut database)
                    .and_then(|_| database.sync_all())
                    .map_err(|source| StoreError::File { path: place, source })?;
            }
            Some(KEY) if name == KEY && bytes <= KEY_BYTES_MAX => {
                let mut key = Vec::new();
                entry.read_to_end(&mut key).map_err(unreadable)?;
                private::write(&data_dir.join(KEY), &key)?;
            }
            Some(missing) => return Err(bad(format!("it has {name:?} in place of {missing}"))),
            None => {
                let digest = name.strip_prefix(CONTENTS).and_then(blobs::digest_of);
                let digest =
                    digest.ok_or_else(|| bad(format!("{name:?} is no name of a content")))?;
                let contents = match &mut contents {
                    Some(contents) => contents,
                    none => none.insert(blobs::Blobs::open(data_dir)?),
                };
                match contents.put(&digest, bytes, &mut entry) {
                    // It is found to be missing afterwards.
                    Err(StoreError::Damaged { .. }) => {}
                    put => put?,
                }
            }
        }
    }
    if expected.next().is_some() {
        return Err(bad("it breaks off".to_owned()));
    }
    Ok(())
}

/// Removes what is in a directory that was empty, and the directory if it was
/// not there.
fn undo(data_dir: &Path, was_there: bool) -> io::Result<()> {
    if !was_there {
        return std::fs::remove_dir_all(data_dir);
    }
    for entry in std::fs::read_dir(data_dir)? {
        let path = entry?.path();
        match path.symlink_metadata()?.is_dir() {
            true => std::fs::remove_dir_all(path)?,
            false => std::fs::remove_file(path)?,
        }
    }
    Ok(())
}

/// Adds a file to an archive. Its length has to be right.
fn add<W: Write>(
    tar: &mut Builder<W>,
    name: &str,
    bytes: u64,
    content: impl Read,
) -> io::Result<()> {
    let mut header = Header::new_ustar();
    header.set_size(bytes);
    header.set_mode(0o600);
    header.set_entry_type(EntryType::Regular);
    tar.append_data(&mut header, name, content.take(bytes))
}

/// The contents that a copy of the database names.
fn contents(database: &Path) -> Result<Vec<(Sha256Digest, u64)>, StoreError> {
    let read = || -> rusqlite::Result<Vec<(Sha256Digest, u64)>> {
        let connection = Connection::open(database)?;
        let mut statement = connection
            .prepare("SELECT DISTINCT sha256, bytes FROM version_files ORDER BY sha256")?;
        let rows = statement.query_map([], |row| {
            Ok((row.get::<_, [u8; 32]>(0)?, row.get::<_, i64>(1)?.unsigned_abs()))
        })?;
        rows.collect()
    };
    read().map_err(|source| StoreError::Database { path: database.to_owned(), source })
}

/// Says, with a database that is damaged, which backup to restore.
pub(super) fn advise(data_dir: &Path, error: StoreError) -> StoreError {
    let (path, problem) = match error {
        StoreError::DatabaseDamaged { path, problem, .. } => (path, problem),
        StoreError::Database { path, source } if is_damage(&source) => (path, source.to_string()),
        other => return other,
    };
    let newest = private::read(&data_dir.join(NEWEST), NEWEST_BYTES_MAX).ok().flatten();
    let newest = newest.and_then(|bytes| String::from_utf8(bytes).ok()).map(PathBuf::from);
    let advice = match newest {
        Some(backup) => format!(
            "restore the newest backup: `ringfence store restore {} --data-dir NEW_DIR`",
            backup.display()
        ),
        None => {
            "no backup of it was made by `ringfence store backup`; restore your own copy".to_owned()
        }
    };
    StoreError::DatabaseDamaged { path, problem, advice }
}

fn is_damage(error: &rusqlite::Error) -> bool {
    use rusqlite::ErrorCode::{DatabaseCorrupt, NotADatabase};
    matches!(error.sqlite_error_code(), Some(DatabaseCorrupt | NotADatabase))
}
