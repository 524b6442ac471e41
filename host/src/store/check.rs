//! Whether what is on disk is what was written, and freeing what nothing
//! refers to.

use super::compiled::{self, SnapshotKeys};
use super::record::{self, RowError};
use super::rows::{
    AppRow, ClusterRow, DeploymentRow, FileRow, ModelRow, NodepoolRow, ShareRow, TokenRow, UserRow,
    VersionCallRow, VersionRow,
};
use super::{Sha256Digest, Store, StoreError};
use crate::package::folder;
use crate::text::with_causes;
use rusqlite::Connection;
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::path::Path;

/// Versions that are named with a content that is damaged.
const VERSIONS_NAMED_MAX: usize = 8;

/// What a check found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// Each thing that is not as it should be, in a sentence.
    pub problems: Vec<String>,
    /// Versions that were looked at.
    pub versions: usize,
    /// Contents that were read.
    pub contents: usize,
    /// Contents that nothing refers to; `store gc` frees them.
    pub unreferenced: usize,
    /// Their bytes.
    pub unreferenced_bytes: u64,
}

/// What was freed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Freed {
    /// Files that are gone.
    pub files: usize,
    /// Their bytes.
    pub bytes: u64,
}

/// Refuses a database of which a page or a row is damaged.
pub(super) fn whole(connection: &Connection, path: &Path) -> Result<(), StoreError> {
    let problems = damage(connection).map_err(|error| StoreError::row(path, error))?;
    match problems.first() {
        None => Ok(()),
        Some(problem) => Err(StoreError::DatabaseDamaged {
            path: path.to_owned(),
            problem: problem.clone(),
            advice: String::new(),
        }),
    }
}

/// Everything that is wrong with the database itself.
fn damage(connection: &Connection) -> Result<Vec<String>, RowError> {
    let mut problems = Vec::new();
    let mut statement = connection.prepare("PRAGMA quick_check(10)")?;
    for line in statement.query_map([], |row| row.get::<_, String>(0))? {
        match line?.as_str() {
            "ok" => {}
            problem => problems.push(problem.to_owned()),
        }
    }
    let mut rows = |damaged: Result<Vec<RowError>, RowError>| {
        problems.extend(damaged?.iter().map(ToString::to_string));
        Ok::<_, RowError>(())
    };
    rows(record::damaged::<UserRow>(connection))?;
    rows(record::damaged::<AppRow>(connection))?;
    rows(record::damaged::<ModelRow>(connection))?;
    rows(record::damaged::<VersionRow>(connection))?;
    rows(record::damaged::<FileRow>(connection))?;
    rows(record::damaged::<VersionCallRow>(connection))?;
    rows(record::damaged::<TokenRow>(connection))?;
    rows(record::damaged::<ShareRow>(connection))?;
    rows(record::damaged::<ClusterRow>(connection))?;
    rows(record::damaged::<NodepoolRow>(connection))?;
    rows(record::damaged::<DeploymentRow>(connection))?;
    Ok(problems)
}

impl Store {
    /// Reads everything and says what is wrong.
    pub fn check(&self) -> Result<Report, StoreError> {
        let mut report = Report { problems: self.read(damage)?, ..Report::default() };
        if !report.problems.is_empty() {
            return Ok(report);
        }
        // What is deleted meanwhile stays on disk until this is over, and the rows
        // are those of one moment.
        let _contents = self.contents.read().unwrap_or_else(|poisoned| poisoned.into_inner());
        let rows = self.read(Rows::of)?;
        report.problems.extend(rows.dangling);
        let models: HashSet<_> = rows.models.iter().map(|model| &model.name).collect();
        let versions: BTreeSet<_> = rows.versions.iter().map(|v| (&v.name, &*v.id)).collect();
        report.versions = versions.len();
        let mut files: BTreeMap<_, Vec<&FileRow>> = BTreeMap::new();
        for file in &rows.files {
            files.entry((&file.name, &*file.version_id)).or_default().push(file);
        }
        for version in &rows.versions {
            let files = files.get(&(&version.name, &*version.id)).map_or(&[][..], Vec::as_slice);
            check_version(version, files, &mut report.problems);
        }
        for model in &rows.models {
            if let Some(promoted) = &model.promoted
                && !versions.contains(&(&model.name, &**promoted))
            {
                report.problems.push(format!(
                    "{} has promoted the version {promoted}, which is not there",
                    model.name
                ));
            }
        }
        for deployment in &rows.deployments {
            if !models.contains(&deployment.model) {
                report.problems.push(format!(
                    "the deployment {} is of {}, which is not there",
                    deployment.id, deployment.model
                ));
            }
            if let Some(version) = &deployment.version_id
                && !versions.contains(&(&deployment.model, &**version))
            {
                report.problems.push(format!(
                    "the deployment {} is of the version {version}, which is not there",
                    deployment.id
                ));
            }
        }
        let mut contents: BTreeMap<_, (u64, BTreeSet<String>)> = BTreeMap::new();
        for file in &rows.files {
            let (bytes, of) = contents.entry(file.sha256).or_default();
            *bytes = file.bytes;
            of.insert(format!("{}@{}", file.name, file.version_id));
        }
        report.contents = contents.len();
        for (digest, (bytes, of)) in &contents {
            if let Err(problem) = self.blobs.check(digest, *bytes) {
                let more = of.len().saturating_sub(VERSIONS_NAMED_MAX);
                let mut of: Vec<_> = of.iter().take(VERSIONS_NAMED_MAX).cloned().collect();
                if more > 0 {
                    of.push(format!("{more} more"));
                }
                report.problems.push(format!("{problem}; it is of {}", of.join(", ")));
            }
        }
        for (path, digest, bytes) in self.blobs.all()? {
            match digest {
                None => report.problems.push(format!("{} is no content", path.display())),
                Some(digest) if !contents.contains_key(&digest) => {
                    report.unreferenced += 1;
                    report.unreferenced_bytes += bytes;
                }
                Some(_) => {}
            }
        }
        Ok(report)
    }

    /// Frees contents that nothing refers to, and compiled components of none.
    /// `compiler` is the one whose work is kept; nothing to keep all of them.
    pub fn collect_garbage(&self, compiler: Option<&str>) -> Result<Freed, StoreError> {
        let _contents = self.contents.write().unwrap_or_else(|poisoned| poisoned.into_inner());
        let used = self.used()?;
        let mut freed = Freed::default();
        for (path, digest, bytes) in self.blobs.all()? {
            if let Some(digest) = digest.filter(|digest| !used.contains(digest)) {
                self.blobs.remove(&digest)?;
                tracing::debug!(path = %path.display(), "freed");
                freed.files += 1;
                freed.bytes += bytes;
            }
        }
        if let Some(compiler) = compiler {
            let snapshots = self.versions()?.into_iter().flat_map(|version| {
                let SnapshotKeys { about, code } = SnapshotKeys::of(&version.name, &version.id);
                [about, code]
            });
            let kept: HashSet<String> = used
                .iter()
                .copied()
                .chain(snapshots)
                .map(|digest| compiled::name(&digest, compiler))
                .collect();
            freed.bytes += self.compiled.retain(|name| kept.contains(name))?;
        }
        Ok(freed)
    }

    /// Frees those of these contents that nothing refers to any more. What is
    /// being copied meanwhile, or cannot be removed, stays for the next `store gc`:
    /// what named it is deleted all the same.
    pub(super) fn free(&self, contents: &[Sha256Digest]) {
        let Ok(_contents) = self.contents.try_write() else { return };
        if let Err(error) = self.free_unused(contents) {
            tracing::warn!("what was deleted still takes its bytes: {}", with_causes(&error));
        }
    }

    fn free_unused(&self, contents: &[Sha256Digest]) -> Result<(), StoreError> {
        for digest in contents {
            let used: bool = self.read(|connection| {
                Ok(connection.query_row(
                    "SELECT EXISTS (SELECT 1 FROM version_files WHERE sha256=?1)",
                    [digest.as_slice()],
                    |row| row.get(0),
                )?)
            })?;
            if !used {
                self.blobs.remove(digest)?;
            }
        }
        Ok(())
    }

    /// Every content that a version has.
    pub(super) fn used(&self) -> Result<HashSet<Sha256Digest>, StoreError> {
        let files: Vec<FileRow> = self.read(|connection| record::select(connection, "", []))?;
        Ok(files.into_iter().map(|file| file.sha256).collect())
    }
}

/// What belongs together, as of one moment.
struct Rows {
    models: Vec<ModelRow>,
    versions: Vec<VersionRow>,
    files: Vec<FileRow>,
    deployments: Vec<DeploymentRow>,
    dangling: Vec<String>,
}

impl Rows {
    fn of(connection: &Connection) -> Result<Self, RowError> {
        Ok(Self {
            models: record::select(connection, "", [])?,
            versions: record::select(connection, "", [])?,
            files: record::select(connection, "", [])?,
            deployments: record::select(connection, "", [])?,
            dangling: dangling(connection)?,
        })
    }
}

/// Whether the rows of a version belong together.
fn check_version(version: &VersionRow, files: &[&FileRow], problems: &mut Vec<String>) {
    let label = format!("{}@{}", version.name, version.id);
    let listed = files.iter().map(|file| (file.path.as_str(), file.bytes, &file.sha256));
    if folder::version_of(listed) != version.id {
        problems.push(format!("{label}: its files are not those that its id stands for"));
    }
    for path in folder::REQUIRED {
        if !files.iter().any(|file| file.path == path) {
            problems.push(format!("{label}: it has no {path}"));
        }
    }
    if files.iter().map(|file| file.bytes).sum::<u64>() != version.bytes {
        problems.push(format!("{label}: its files have other lengths than it says"));
    }
}

/// Rows that refer to others that are not there.
fn dangling(connection: &Connection) -> Result<Vec<String>, RowError> {
    let mut statement = connection.prepare("PRAGMA foreign_key_check")?;
    let rows = statement.query_map([], |row| {
        let (table, parent): (String, String) = (row.get(0)?, row.get(2)?);
        Ok(format!("a row of {table} refers to none of {parent}"))
    })?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}
