//! Users, their apps and their tokens.

use super::rows::{AppRow, TokenRow, UserRow};
use super::{Store, StoreError, now, record, schema};
use std::path::Path;

impl Store {
    /// Every user, in the order of names.
    pub fn users(&self) -> Result<Vec<UserRow>, StoreError> {
        self.read(|connection| record::select(connection, "", []))
    }

    /// A user.
    pub fn user(&self, id: &str) -> Result<Option<UserRow>, StoreError> {
        self.read(|connection| record::one(connection, "WHERE id=?1", [id]))
    }

    /// Makes a user; fails where there is one.
    pub fn add_user(&self, id: &str) -> Result<UserRow, StoreError> {
        self.write(|transaction| {
            let found: Option<UserRow> = record::one(transaction, "WHERE id=?1", [id])?;
            if found.is_some() {
                return Err(StoreError::Exists { what: format!("a user {id}") }.into());
            }
            let user = schema::user(id);
            record::put(transaction, &user)?;
            Ok(user)
        })
    }

    /// Changes what is kept of a user.
    pub fn update_user(
        &self,
        id: &str,
        change: impl FnOnce(&mut UserRow),
    ) -> Result<UserRow, StoreError> {
        self.write(|transaction| {
            let found = record::one(transaction, "WHERE id=?1", [id]);
            let mut user: UserRow =
                found?.ok_or_else(|| StoreError::Absent { what: format!("user {id}") })?;
            change(&mut user);
            record::put(transaction, &user)?;
            Ok(user)
        })
    }

    /// The apps of a user, in the order of names.
    pub fn apps(&self, user_id: &str) -> Result<Vec<AppRow>, StoreError> {
        self.read(|connection| record::select(connection, "WHERE user_id=?1", [user_id]))
    }

    /// An app.
    pub fn app(&self, user_id: &str, id: &str) -> Result<Option<AppRow>, StoreError> {
        self.read(|connection| record::one(connection, "WHERE user_id=?1 AND id=?2", [user_id, id]))
    }

    /// Makes an app, or finds the one that is there.
    pub fn ensure_app(&self, user_id: &str, id: &str) -> Result<AppRow, StoreError> {
        if let Some(app) = self.app(user_id, id)? {
            return Ok(app);
        }
        let app = AppRow { user_id: user_id.to_owned(), id: id.to_owned(), created_at: now() };
        self.write(|transaction| Ok(record::put(transaction, &app)?))?;
        Ok(app)
    }

    /// Deletes an app that has no models.
    pub fn delete_app(&self, user_id: &str, id: &str) -> Result<(), StoreError> {
        let what = format!("app {user_id}/{id}");
        self.write(|transaction| {
            let models: i64 = transaction.query_row(
                "SELECT count(*) FROM models WHERE user_id=?1 AND app_id=?2",
                [user_id, id],
                |row| row.get(0),
            )?;
            if models > 0 {
                return Err(StoreError::Used { what, by: format!("{models} models") }.into());
            }
            let deleted = transaction
                .execute("DELETE FROM apps WHERE user_id=?1 AND id=?2", [user_id, id])?;
            if deleted == 0 { Err(StoreError::Absent { what }.into()) } else { Ok(()) }
        })
    }

    /// Every token, revoked ones too.
    pub fn tokens(&self) -> Result<Vec<TokenRow>, StoreError> {
        self.read(|connection| record::select(connection, "", []))
    }

    /// Adds a token of a user that is there, and returns only when it is on
    /// disk. `before` runs first, with the data directory; when it fails, the
    /// token is not added.
    pub fn add_token(
        &self,
        token: &TokenRow,
        before: impl FnOnce(&Path) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        self.write(|transaction| {
            let user: Option<UserRow> =
                record::one(transaction, "WHERE id=?1", [token.user_id.as_str()])?;
            if user.is_none() {
                return Err(StoreError::Absent { what: format!("user {}", token.user_id) }.into());
            }
            record::put(transaction, token)?;
            Ok(before(self.data_dir())?)
        })
    }

    /// Revokes a token. One that is revoked stays so.
    pub fn revoke_token(&self, id: &str) -> Result<TokenRow, StoreError> {
        self.write(|transaction| {
            let found = record::one(transaction, "WHERE id=?1", [id]);
            let mut token: TokenRow =
                found?.ok_or_else(|| StoreError::Absent { what: format!("token {id}") })?;
            token.revoked_at.get_or_insert(now());
            record::put(transaction, &token)?;
            Ok(token)
        })
    }
}
