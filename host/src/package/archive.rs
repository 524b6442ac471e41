//! An uploaded archive to a folder: gzip around tar, read by rules of our own.
//!
//! Owns which entries are taken and how much of them. A library reads the
//! format; none decides where a byte goes. What an archive says about owners,
//! modes, times, links and devices is not followed.

use super::folder::{DEPTH_MAX, PACKAGE_BYTES_MAX, PATH_BYTES_MAX};
use crate::limits::limit;
use crate::text::escape_controls;
use cap_std::fs::{Dir, OpenOptions};
use flate2::bufread::GzDecoder;
use std::collections::HashSet;
use std::io::{self, BufRead, BufReader, Read};
use tar::{Archive, EntryType, Header};

/// Most entries of an archive, taken or not.
pub const ENTRIES_MAX: usize = 20_000;
/// Longest extended header; it holds a path and some times.
const EXTENSION_BYTES_MAX: u64 = 64 << 10;
/// Bytes that an archive may be larger than what was sent of it: weights hardly
/// shrink, and text at most some twenty times.
const RATIO_MAX: u64 = 100;
/// What the ratio is not asked of.
const RATIO_FREE_BYTES: u64 = 64 << 20;

/// What became of an archive.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Unpacked {
    /// Files that were written.
    pub files: usize,
    /// Their bytes.
    pub bytes: u64,
    /// Files that are no part of a package, such as sources.
    pub skipped: usize,
}

/// Why an archive is refused. Each text names the entry and the fix.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// It cannot be read as gzip and tar.
    #[error("the archive is no gzip of a tar, or breaks off: {0}")]
    Format(io::Error),
    /// Something follows its end.
    #[error("something follows the archive's end; send one gzip of one tar")]
    Trailing,
    /// An entry that is neither a file nor a folder.
    #[error("{path} is a {kind}; send regular files and folders only")]
    Kind {
        /// The entry.
        path: String,
        /// What it is.
        kind: &'static str,
    },
    /// A name that leads elsewhere or cannot be shown.
    #[error("an entry is called {path:?}; send relative names of plain text without `..`")]
    Name {
        /// The entry.
        path: String,
    },
    /// The same file twice, or once as a file and once as a folder.
    #[error("{path} is in the archive twice; send each file once")]
    Twice {
        /// The entry.
        path: String,
    },
    /// Too many entries.
    #[error("the archive has more than {ENTRIES_MAX} entries; send fewer files")]
    TooMany,
    /// Too many bytes.
    #[error("the archive holds more than {PACKAGE_BYTES_MAX} bytes; send fewer or smaller files")]
    TooLarge,
    /// Far more than was sent.
    #[error(
        "the archive unpacks to more than {RATIO_MAX} times what was sent; send it without padding"
    )]
    Ratio,
    /// A file cannot be written.
    #[error("cannot write {path}")]
    Write {
        /// The file.
        path: String,
        /// Why.
        source: io::Error,
    },
}

/// Writes those files of an archive that `wanted` takes into an empty folder.
/// Its argument is the path with `/` between its parts.
pub fn unpack(
    archive: impl Read,
    into: &Dir,
    wanted: impl Fn(&str) -> bool,
) -> Result<Unpacked, ArchiveError> {
    let mut unpacked = Unpacked::default();
    let mut seen = HashSet::new();
    let mut reader = Limited { decoder: GzDecoder::new(Counted::new(archive)), bytes: 0 };
    {
        let mut tar = Archive::new(&mut reader);
        let mut extension = Extension::default();
        let mut entries_left = limit("archive_entries", ENTRIES_MAX);
        for entry in tar.entries().map_err(format_error)?.raw(true) {
            let mut entry = entry.map_err(format_error)?;
            entries_left = entries_left.checked_sub(1).ok_or(ArchiveError::TooMany)?;
            let header = entry.header();
            let kind = header.entry_type();
            match kind {
                EntryType::XHeader => {
                    let name = shown(header);
                    extension = Extension::read(&mut entry, &name)?;
                    continue;
                }
                EntryType::GNULongName => {
                    let name = shown(header);
                    let text = extended(&mut entry, &name)?;
                    let text = text.split('\0').next().unwrap_or_default().to_owned();
                    extension = Extension { path: Some(text), size: None };
                    continue;
                }
                // Of all entries: times and comments, nothing that is followed.
                EntryType::XGlobalHeader => continue,
                _ => {}
            }
            let said = std::mem::take(&mut extension);
            let path = match said.path {
                Some(path) => path,
                None => path_of(header)?,
            };
            // The header's own length decides where the next entry begins, so one
            // that differs would make two readers see two archives.
            if said.size.is_some_and(|size| Some(size) != header.entry_size().ok()) {
                return Err(ArchiveError::Kind {
                    path: escape_controls(&path),
                    kind: "file of two lengths",
                });
            }
            match kind {
                EntryType::Directory => {
                    plain(&path)?;
                }
                EntryType::Regular | EntryType::Continuous => {
                    let path =
                        plain(&path)?.ok_or_else(|| ArchiveError::Name { path: path.clone() })?;
                    if !seen.insert(path.clone()) {
                        return Err(ArchiveError::Twice { path });
                    }
                    if wanted(&path) {
                        unpacked.bytes += write(into, &path, &mut entry)?;
                        unpacked.files += 1;
                    } else {
                        unpacked.skipped += 1;
                    }
                }
                other => {
                    let path = escape_controls(&path);
                    return Err(ArchiveError::Kind { path, kind: word(other) });
                }
            }
        }
    }
    // The end of tar is padding; what else follows is somebody's second archive.
    ends(&mut reader)?;
    Ok(unpacked)
}

/// What an extended header says of the next entry.
#[derive(Default)]
struct Extension {
    path: Option<String>,
    size: Option<u64>,
}

impl Extension {
    /// Records of `LENGTH KEY=VALUE\n`: POSIX.1-2001, pax.
    fn read(entry: &mut impl Read, name: &str) -> Result<Self, ArchiveError> {
        let text = extended(entry, name)?;
        let mut found = Self::default();
        for record in text.lines() {
            let record = record.split_once(' ').map_or("", |(_, record)| record);
            match record.split_once('=') {
                Some(("path", path)) => found.path = Some(path.to_owned()),
                Some(("size", size)) => {
                    let size = size.parse().map_err(|_| ArchiveError::Kind {
                        path: name.to_owned(),
                        kind: "header without a length",
                    })?;
                    found.size = Some(size);
                }
                Some((key, _)) if key.starts_with("GNU.sparse") => {
                    return Err(ArchiveError::Kind { path: name.to_owned(), kind: "sparse file" });
                }
                _ => {}
            }
        }
        Ok(found)
    }
}

/// The text of an extended header.
fn extended(entry: &mut impl Read, name: &str) -> Result<String, ArchiveError> {
    let mut bytes = Vec::new();
    let bytes_max = limit("archive_header", EXTENSION_BYTES_MAX);
    entry.take(bytes_max + 1).read_to_end(&mut bytes).map_err(format_error)?;
    let long = bytes.len() as u64 > bytes_max;
    match String::from_utf8(bytes) {
        Ok(text) if !long => Ok(text),
        _ => Err(ArchiveError::Kind {
            path: name.to_owned(),
            kind: "header that is too long or no text",
        }),
    }
}

fn write(into: &Dir, path: &str, entry: &mut impl Read) -> Result<u64, ArchiveError> {
    let write_error = |source| ArchiveError::Write { path: path.to_owned(), source };
    if let Some((folder, _)) = path.rsplit_once('/') {
        into.create_dir_all(folder).map_err(write_error)?;
    }
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    let mut file = into.open_with(path, &options).map_err(write_error)?;
    // An error of the archive passes through the copy.
    io::copy(entry, &mut file).map_err(|source| match limit_of(&source) {
        Some(refused) => refused,
        None => write_error(source),
    })
}

/// The path without `./` and a slash at its end; nothing for the folder itself.
fn plain(path: &str) -> Result<Option<String>, ArchiveError> {
    let refused = || ArchiveError::Name { path: path.chars().take(PATH_BYTES_MAX).collect() };
    if path.len() > limit("archive_path", PATH_BYTES_MAX)
        || path.starts_with('/')
        || path.chars().any(|c| c.is_control() || c == '\\')
    {
        return Err(refused());
    }
    let parts: Vec<&str> = path.split('/').filter(|part| !matches!(*part, "" | ".")).collect();
    if parts.contains(&"..") || parts.len() > limit("archive_depth", DEPTH_MAX + 2) {
        return Err(refused());
    }
    Ok((!parts.is_empty()).then(|| parts.join("/")))
}

fn path_of(header: &Header) -> Result<String, ArchiveError> {
    let bytes = header.path_bytes();
    match std::str::from_utf8(&bytes) {
        Ok(path) => Ok(path.to_owned()),
        Err(_) => Err(ArchiveError::Name { path: shown(header) }),
    }
}

fn shown(header: &Header) -> String {
    escape_controls(&String::from_utf8_lossy(&header.path_bytes()))
}

fn word(kind: EntryType) -> &'static str {
    match kind {
        EntryType::Link => "hard link",
        EntryType::Symlink => "symbolic link",
        EntryType::Char | EntryType::Block => "device",
        EntryType::Fifo => "pipe",
        EntryType::GNUSparse => "sparse file",
        _ => "thing of an unknown kind",
    }
}

/// What was sent, counted as it is taken.
struct Counted<R> {
    inner: BufReader<R>,
    bytes: u64,
}

impl<R: Read> Counted<R> {
    fn new(archive: R) -> Self {
        Self { inner: BufReader::new(archive), bytes: 0 }
    }
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.bytes += count as u64;
        Ok(count)
    }
}

impl<R: Read> BufRead for Counted<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        self.inner.fill_buf()
    }

    fn consume(&mut self, count: usize) {
        self.bytes += count as u64;
        self.inner.consume(count);
    }
}

/// What comes out of it, up to its limits.
struct Limited<R> {
    decoder: GzDecoder<Counted<R>>,
    bytes: u64,
}

/// A limit, as it travels through `io::Error`.
#[derive(Debug, Clone, Copy, thiserror::Error)]
enum Limit {
    #[error("too large")]
    Bytes,
    #[error("too large for what was sent")]
    Ratio,
}

impl<R: Read> Read for Limited<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.decoder.read(buffer)?;
        self.bytes += count as u64;
        let sent = self.decoder.get_ref().bytes;
        if self.bytes > limit("archive_bytes", PACKAGE_BYTES_MAX) {
            return Err(io::Error::other(Limit::Bytes));
        }
        if self.bytes > RATIO_FREE_BYTES && self.bytes / limit("archive_ratio", RATIO_MAX) > sent {
            return Err(io::Error::other(Limit::Ratio));
        }
        Ok(count)
    }
}

fn limit_of(error: &io::Error) -> Option<ArchiveError> {
    let mut cause = error.get_ref().map(|inner| inner as &(dyn std::error::Error + 'static));
    while let Some(inner) = cause {
        match inner.downcast_ref::<Limit>() {
            Some(Limit::Bytes) => return Some(ArchiveError::TooLarge),
            Some(Limit::Ratio) => return Some(ArchiveError::Ratio),
            None => {}
        }
        cause = inner.source();
    }
    None
}

fn format_error(error: io::Error) -> ArchiveError {
    limit_of(&error).unwrap_or(ArchiveError::Format(error))
}

/// Reads the padding after the last entry, and that nothing follows the gzip.
fn ends<R: Read>(reader: &mut Limited<R>) -> Result<(), ArchiveError> {
    let mut buffer = [0; 4096];
    loop {
        let count = reader.read(&mut buffer).map_err(format_error)?;
        match buffer.get(..count) {
            Some([]) | None => break,
            Some(bytes) if bytes.iter().any(|byte| *byte != 0) => {
                return Err(ArchiveError::Trailing);
            }
            Some(_) => {}
        }
    }
    match reader.decoder.get_mut().fill_buf().map_err(format_error)? {
        [] => Ok(()),
        _ => Err(ArchiveError::Trailing),
    }
}

#[cfg(test)]
#[path = "archive_tests.rs"]
mod tests;
