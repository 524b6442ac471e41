//! When versions were last called, as far as it was told.

use super::models::VERSION;
use super::record;
use super::rows::{FileRow, VersionCallRow, VersionRow};
use super::{Store, StoreError};
use crate::package::folder::COMPONENT_PATH;

impl Store {
    /// Keeps when versions were called, in one write; those of versions that are
    /// not there are left out.
    pub fn note_calls(&self, calls: &[VersionCallRow]) -> Result<(), StoreError> {
        self.write(|transaction| {
            for call in calls {
                let name = &call.name;
                let there: Option<VersionRow> = record::one(
                    transaction,
                    VERSION,
                    [name.user_id(), name.app_id(), name.id(), &call.version_id],
                )?;
                if there.is_some() {
                    record::put(transaction, call)?;
                }
            }
            Ok(())
        })
    }

    /// When versions were called; nothing of those that never were.
    pub fn calls(&self) -> Result<Vec<VersionCallRow>, StoreError> {
        self.read(|connection| record::select(connection, "", []))
    }

    /// The component of every version.
    pub fn components(&self) -> Result<Vec<FileRow>, StoreError> {
        self.read(|connection| record::select(connection, "WHERE path=?1", [COMPONENT_PATH]))
    }
}
