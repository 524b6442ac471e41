//! Who is calling: tokens to callers.
//!
//! Owns tokens (PATs), their hashes in memory and the `authorization`
//! metadata. Knows no models: what a caller may do is decided elsewhere.

mod quota;
mod scope;
mod throttle;
mod token;

#[cfg(test)]
mod tests;

pub use quota::{Allowance, AllowanceError, Payer, Quota};
pub use scope::{Scope, ScopeError, Scopes};
pub use token::Token;

use crate::package::config::ModelName;
use crate::store::{Key, KeyedHash, QuotaRow, Store, StoreError, TokenRow, UserRow, now};
use crate::text::hex;
use quota::Allowances;
use std::collections::{HashMap, HashSet};
use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, Instant};
use throttle::Throttle;
use tokio_util::sync::CancellationToken;

/// The user of the first token, of the operator's socket, and of every call
/// without authentication.
pub const OPERATOR: &str = ModelName::USER_DEFAULT;
/// Where the first token lies, below the data directory.
pub(crate) const FIRST_TOKEN_FILE: &str = "admin.pat";
const TOKEN_ID_BYTES: usize = 6;

/// The principal that a token proves.
#[derive(Debug, Clone)]
pub struct Caller {
    user_id: Arc<str>,
    scopes: Scopes,
    expires_at: Option<i64>,
    /// Cancelled when the token counts no more.
    revoked: CancellationToken,
}

impl Caller {
    fn new(user_id: &str, scopes: Scopes) -> Self {
        let revoked = CancellationToken::new();
        Self { user_id: user_id.into(), scopes, expires_at: None, revoked }
    }

    /// Whoever has the data directory: may do everything.
    pub fn operator() -> Self {
        Self::new(OPERATOR, Scopes::of(&Scope::ALL))
    }

    /// A caller as a test needs one, who may not administrate.
    #[cfg(test)]
    pub(crate) fn of_user(user_id: &str) -> Self {
        Self::new(user_id, Scopes::of(&[Scope::Predict, Scope::Upload]))
    }

    /// The user.
    pub fn user_id(&self) -> &str {
        &self.user_id
    }

    /// Whether the token is for this.
    pub fn may(&self, scope: Scope) -> bool {
        self.scopes.has(scope)
    }

    /// Whether its time is over, at so many seconds since 1970. Nothing is kept
    /// of the answer: a clock that is set right again mends it.
    fn has_ended(&self, now: i64) -> bool {
        self.expires_at.is_some_and(|at| at <= now)
    }

    /// Something that ends with the token, when that is revoked or its user is
    /// disabled, and can end before.
    pub fn bound(&self) -> CancellationToken {
        self.revoked.child_token()
    }

    /// Resolves when the token counts no more: it was revoked, its user was
    /// disabled, or its time is over.
    pub async fn is_over(&self) {
        let expired = async {
            match self.expires_at {
                None => std::future::pending().await,
                Some(at) => {
                    // The wall clock may jump, so it is looked at now and then.
                    while !self.has_ended(now()) {
                        let left = u64::try_from(at.saturating_sub(now())).unwrap_or(0);
                        tokio::time::sleep(Duration::from_secs(left.clamp(1, 10))).await;
                    }
                }
            }
        };
        tokio::select! {
            () = self.revoked.cancelled() => {}
            () = expired => {}
        }
    }
}

/// The token that was made at the first start.
#[derive(Debug)]
pub struct FirstToken {
    /// The file that holds it and that only this user can read.
    pub path: PathBuf,
    /// The token itself.
    pub token: Token,
}

/// Why a caller is refused. A missing token, a malformed one, an unknown, a
/// revoked and an expired one are all the same to whoever sent it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AuthError {
    /// No token, or none that counts.
    #[error(
        "the PAT is missing or not valid; send `authorization: Key PAT` with a PAT of this host"
    )]
    Refused,
    /// The token is not for this.
    #[error(
        "the PAT is not for this; it needs the scope {}, which `ringfence pat create --scope` gives",
        .0.as_str()
    )]
    Scope(Scope),
}

/// What is wanted of a new token.
#[derive(Debug, Clone)]
pub struct NewToken {
    /// Whose it is.
    pub user_id: String,
    /// For people.
    pub name: String,
    /// What it is for.
    pub scopes: Scopes,
    /// Seconds from now until it ends by itself.
    pub expires_in_seconds: Option<u64>,
}

/// Tells callers by their tokens.
#[derive(Debug)]
pub struct Auth {
    kind: Kind,
    throttle: Throttle,
    allowances: Arc<Allowances>,
}

#[derive(Debug)]
enum Kind {
    /// Everyone is this one.
    Everyone(Caller),
    Tokens(Box<Tokens>),
}

struct Tokens {
    key: Key,
    store: Arc<Store>,
    callers: RwLock<HashMap<KeyedHash, (String, Caller)>>,
    /// Those of users that have some of their own.
    quotas: RwLock<HashMap<String, Quota>>,
    /// Held by whoever changes tokens or users.
    changing: Mutex<()>,
}

impl fmt::Debug for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tokens(..)")
    }
}

impl Auth {
    /// Every caller is `local` and no token is asked for. Only for a host that
    /// nobody else can reach. What concerns the host itself is not allowed.
    pub fn none() -> Self {
        let everyone = Caller::new(OPERATOR, Scopes::of(&[Scope::Predict, Scope::Upload]));
        Self::of(Kind::Everyone(everyone))
    }

    fn of(kind: Kind) -> Self {
        Self { kind, throttle: Throttle::default(), allowances: Arc::default() }
    }

    /// One more call of a caller's, if its user may have one more.
    pub fn allow(&self, caller: &Caller) -> Result<Allowance, AllowanceError> {
        let quota = match &self.kind {
            Kind::Everyone(_) => None,
            Kind::Tokens(tokens) => {
                let quotas = tokens.quotas.read().unwrap_or_else(PoisonError::into_inner);
                quotas.get(caller.user_id()).copied()
            }
        };
        let quota = quota.unwrap_or_else(|| Quota::of(&QuotaRow::default()));
        self.allowances.take(caller.user_id(), quota, Instant::now())
    }

    /// Whether everyone is let in.
    pub fn is_none(&self) -> bool {
        matches!(self.kind, Kind::Everyone(_))
    }

    /// Reads the tokens of a store. Where it has none yet, one is made for the
    /// user `local`, for everything, and written to `admin.pat`.
    pub fn open(store: Arc<Store>) -> Result<(Self, Option<FirstToken>), StoreError> {
        if store.user(OPERATOR)?.is_none() {
            store.add_user(OPERATOR)?;
        }
        let tokens = Tokens {
            key: store.key().clone(),
            store,
            callers: RwLock::default(),
            quotas: RwLock::default(),
            changing: Mutex::default(),
        };
        let mut first = None;
        if tokens.store.tokens()?.is_empty() {
            let path = tokens.store.data_dir().join(FIRST_TOKEN_FILE);
            let wanted = NewToken {
                user_id: OPERATOR.to_owned(),
                name: "first".to_owned(),
                scopes: Scopes::of(&Scope::ALL),
                expires_in_seconds: None,
            };
            // In this order a crash never leaves a token that nobody has.
            let (token, _) = tokens.create(&wanted, |token| {
                Store::write_private(&path, format!("{}\n", token.reveal()).as_bytes())
            })?;
            tokens.store.audit(OPERATOR, "made the first token", &[("user", OPERATOR)])?;
            first = Some(FirstToken { path, token });
        }
        tokens.reload()?;
        Ok((Self::of(Kind::Tokens(Box::new(tokens))), first))
    }

    /// The caller that an `authorization` value proves: `Key PAT`, or
    /// `Bearer PAT`.
    pub fn caller(&self, authorization: Option<&str>) -> Result<Caller, AuthError> {
        match &self.kind {
            Kind::Everyone(caller) => Ok(caller.clone()),
            Kind::Tokens(tokens) => {
                let token = authorization.and_then(token_of).ok_or(AuthError::Refused)?;
                // What is looked up is a keyed hash. How long that takes may
                // depend on the hash, but nobody without the key can steer it,
                // so it tells nothing about any stored token.
                let hash = tokens.key.hash(token.as_bytes());
                let callers = tokens.callers.read().unwrap_or_else(PoisonError::into_inner);
                let (_, caller) = callers.get(&hash).ok_or(AuthError::Refused)?;
                match caller.has_ended(now()) {
                    true => Err(AuthError::Refused),
                    false => Ok(caller.clone()),
                }
            }
        }
    }

    /// How long the refusal of a bad token of an address should take.
    pub fn refusal_delay(&self, address: IpAddr) -> Duration {
        self.throttle.bad(address, Instant::now())
    }

    /// Makes a token. It counts at once. Only the answer ever has its text.
    pub fn create(&self, wanted: &NewToken) -> Result<(Token, TokenRow), StoreError> {
        let tokens = self.tokens()?;
        let _alone = tokens.alone();
        let made = tokens.create(wanted, |_| Ok(()))?;
        tokens.reload()?;
        Ok(made)
    }

    /// Revokes a token. Calls that were made with it end.
    pub fn revoke(&self, id: &str) -> Result<TokenRow, StoreError> {
        let tokens = self.tokens()?;
        let _alone = tokens.alone();
        let revoked = tokens.store.revoke_token(id)?;
        tokens.reload()?;
        Ok(revoked)
    }

    /// Changes a user; calls of one that is disabled end. `tell` hears what became
    /// of the user before anybody changes it again.
    pub fn update_user(
        &self,
        id: &str,
        change: impl FnOnce(&mut UserRow),
        tell: impl FnOnce(&UserRow),
    ) -> Result<UserRow, StoreError> {
        let tokens = self.tokens()?;
        let _alone = tokens.alone();
        let user = tokens.store.update_user(id, change)?;
        tokens.reload()?;
        tell(&user);
        Ok(user)
    }

    fn tokens(&self) -> Result<&Tokens, StoreError> {
        match &self.kind {
            Kind::Tokens(tokens) => Ok(tokens),
            Kind::Everyone(_) => Err(StoreError::Absent {
                what: "authentication on this host; start it without --no-auth".to_owned(),
            }),
        }
    }
}

impl Tokens {
    /// What the store has is read again by one at a time, so that nobody brings
    /// back what another has just revoked.
    fn alone(&self) -> MutexGuard<'_, ()> {
        self.changing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn create(
        &self,
        wanted: &NewToken,
        before: impl FnOnce(&Token) -> Result<(), StoreError>,
    ) -> Result<(Token, TokenRow), StoreError> {
        let token = Token::generate()?;
        let mut id = [0; TOKEN_ID_BYTES];
        getrandom::fill(&mut id).map_err(StoreError::Random)?;
        let created_at = now();
        let seconds = |seconds: u64| i64::try_from(seconds).unwrap_or(i64::MAX);
        let row = TokenRow {
            id: format!("token-{}", hex(&id)),
            user_id: wanted.user_id.clone(),
            hash: self.key.hash(token.reveal().as_bytes()),
            name: wanted.name.clone(),
            scopes: wanted.scopes.to_string(),
            created_at,
            expires_at: wanted.expires_in_seconds.map(|s| created_at.saturating_add(seconds(s))),
            revoked_at: None,
        };
        self.store.add_token(&row, |_| before(&token))?;
        Ok((token, row))
    }

    /// Reads all tokens again. Those that stay keep their callers; the calls of
    /// those that do not count any more are told so.
    fn reload(&self) -> Result<(), StoreError> {
        let users = self.store.users()?;
        let disabled: HashSet<&str> =
            users.iter().filter(|user| user.disabled).map(|user| user.id.as_str()).collect();
        let own = users.iter().filter(|user| user.quota != QuotaRow::default());
        let quotas = own.map(|user| (user.id.clone(), Quota::of(&user.quota))).collect();
        *self.quotas.write().unwrap_or_else(PoisonError::into_inner) = quotas;
        let rows = self.store.tokens()?;
        let mut callers = self.callers.write().unwrap_or_else(PoisonError::into_inner);
        let mut before = std::mem::take(&mut *callers);
        for row in rows {
            if row.revoked_at.is_some() || disabled.contains(row.user_id.as_str()) {
                continue;
            }
            let known = before.remove(&row.hash);
            let caller = known.unwrap_or_else(|| {
                let scopes = row.scopes.parse().unwrap_or_default();
                let caller = Caller::new(&row.user_id, scopes);
                (row.id, Caller { expires_at: row.expires_at, ..caller })
            });
            callers.insert(row.hash, caller);
        }
        for (_, gone) in before.into_values() {
            gone.revoked.cancel();
        }
        Ok(())
    }
}

/// The token of an `authorization` value; the scheme is read in any case.
fn token_of(authorization: &str) -> Option<&str> {
    let (scheme, token) = authorization.trim().split_once(' ')?;
    let token = token.trim();
    let known = scheme.eq_ignore_ascii_case("key") || scheme.eq_ignore_ascii_case("bearer");
    (known && token::is_token(token)).then_some(token)
}
