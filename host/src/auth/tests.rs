//! Tokens prove callers, and nothing else does.

use super::*;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use tempfile::TempDir;

fn open(dir: &Path) -> (Auth, Option<FirstToken>) {
    Auth::open(Arc::new(Store::open(dir).unwrap())).unwrap()
}

fn key(token: &Token) -> String {
    format!("Key {}", token.reveal())
}

fn wanted(scopes: &str) -> NewToken {
    NewToken {
        user_id: "local".into(),
        name: "test".into(),
        scopes: scopes.parse().unwrap(),
        expires_in_seconds: None,
    }
}

fn user_of(auth: &Auth, authorization: Option<&str>) -> Result<String, AuthError> {
    auth.caller(authorization).map(|caller| caller.user_id().to_owned())
}

#[test]
fn the_first_start_makes_a_token_and_the_next_ones_know_it() {
    let dir = TempDir::new().unwrap();
    let (auth, first) = open(dir.path());
    let first = first.unwrap();
    let token = &first.token;
    assert!(token.reveal().starts_with("rfp_") && token.reveal().len() == 53);
    assert_eq!(fs::read_to_string(&first.path).unwrap().trim(), token.reveal());
    assert_eq!(fs::metadata(&first.path).unwrap().permissions().mode() & 0o777, 0o600);
    let caller = auth.caller(Some(&key(token))).unwrap();
    assert_eq!(caller.user_id(), "local");
    assert!(Scope::ALL.into_iter().all(|scope| caller.may(scope)));
    drop(auth);
    let (auth, second) = open(dir.path());
    assert!(second.is_none());
    assert_eq!(user_of(&auth, Some(&key(token))).unwrap(), "local");
}

#[test]
fn a_missing_a_wrong_and_a_malformed_token_are_refused_alike() {
    let dir = TempDir::new().unwrap();
    let (auth, first) = open(dir.path());
    let token = first.unwrap().token;
    let text = token.reveal();
    let (short, _) = text.split_at(text.len() - 1);
    for authorization in [
        None,
        Some(String::new()),
        Some("Key".into()),
        Some("Key ".into()),
        Some(text.to_owned()),
        Some(format!("Basic {text}")),
        Some(format!("Key {short}")),
        Some(format!("Key {text}0")),
        Some(format!("Key {text} {text}")),
        Some(format!("Key {}", Token::generate().unwrap().reveal())),
        Some(format!("Key {}", "a".repeat(1 << 20))),
        Some(format!("Key {}", text.to_uppercase())),
    ] {
        assert_eq!(
            user_of(&auth, authorization.as_deref()),
            Err(AuthError::Refused),
            "{authorization:?}"
        );
    }
    for good in [format!("Bearer {text}"), format!("key  {text} ")] {
        assert!(auth.caller(Some(&good)).is_ok());
    }
}

/// I5: a copy of the whole directory but `admin.pat` has no token in it.
#[test]
fn no_token_is_stored_as_it_is() {
    let dir = TempDir::new().unwrap();
    let (auth, first) = open(dir.path());
    let first = first.unwrap();
    let (second, _) = auth.create(&wanted("predict")).unwrap();
    let mut count = 0;
    for file in fs::read_dir(dir.path()).unwrap() {
        let path = file.unwrap().path();
        if path == first.path || path.is_dir() {
            continue;
        }
        let bytes = fs::read(&path).unwrap();
        for token in [&first.token, &second] {
            let secret = &token.reveal().as_bytes()[4..47];
            let found = bytes.windows(secret.len()).any(|window| window == secret);
            assert!(!found, "{}", path.display());
        }
        count += 1;
    }
    assert!(count >= 4, "database, its log, key and lock");
    assert!(!format!("{auth:?} {first:?}").contains(&first.token.reveal()[4..]));
}

#[test]
fn a_first_start_that_was_cut_off_is_done_again() {
    let dir = TempDir::new().unwrap();
    let other = Token::generate().unwrap();
    fs::write(dir.path().join(FIRST_TOKEN_FILE), other.reveal()).unwrap();
    let (auth, first) = open(dir.path());
    let first = first.unwrap();
    assert_eq!(fs::read_to_string(&first.path).unwrap().trim(), first.token.reveal());
    assert!(auth.caller(Some(&key(&other))).is_err());
}

#[test]
fn without_authentication_everyone_is_local_and_nobody_the_operator() {
    let auth = Auth::none();
    assert_eq!(user_of(&auth, None).unwrap(), "local");
    let caller = auth.caller(Some("Key anything")).unwrap();
    assert!(caller.may(Scope::Upload) && !caller.may(Scope::Admin));
}

#[test]
fn a_token_is_for_its_scopes() {
    let dir = TempDir::new().unwrap();
    let (auth, _) = open(dir.path());
    let (token, row) = auth.create(&wanted("predict")).unwrap();
    assert_eq!((row.name.as_str(), row.scopes.as_str()), ("test", "predict"));
    let caller = auth.caller(Some(&key(&token))).unwrap();
    assert!(caller.may(Scope::Predict) && !caller.may(Scope::Upload));
}

/// CLI-16.
#[tokio::test]
async fn a_revoked_token_counts_no_more_and_its_calls_are_told() {
    let dir = TempDir::new().unwrap();
    let (auth, first) = open(dir.path());
    let (token, row) = auth.create(&wanted("predict")).unwrap();
    let caller = auth.caller(Some(&key(&token))).unwrap();
    let other = auth.caller(Some(&key(&first.unwrap().token))).unwrap();
    auth.revoke(&row.id).unwrap();
    assert!(auth.caller(Some(&key(&token))).is_err());
    caller.is_over().await;
    assert!(!other.revoked.is_cancelled());
    drop(auth);
    let (auth, _) = open(dir.path());
    assert!(auth.caller(Some(&key(&token))).is_err(), "after a restart too");
    assert!(auth.revoke("token-none").is_err());
}

/// Tokens are read again at every change, and nobody reads what was before.
#[test]
fn a_revoked_token_stays_so_whatever_else_changes() {
    let dir = TempDir::new().unwrap();
    let (auth, _) = open(dir.path());
    std::thread::scope(|scope| {
        let others = || {
            for _ in 0..50 {
                auth.create(&wanted("predict")).unwrap();
                auth.update_user("local", |_| {}, |_| {}).unwrap();
            }
        };
        let others = [scope.spawn(others), scope.spawn(others)];
        while !others.iter().all(|other| other.is_finished()) {
            let (token, row) = auth.create(&wanted("predict")).unwrap();
            let caller = auth.caller(Some(&key(&token))).unwrap();
            assert!(!caller.revoked.is_cancelled());
            auth.revoke(&row.id).unwrap();
            for _ in 0..20 {
                assert!(auth.caller(Some(&key(&token))).is_err());
                std::thread::yield_now();
            }
        }
    });
}

#[tokio::test]
async fn a_disabled_users_tokens_count_for_nothing_until_it_is_enabled() {
    let dir = TempDir::new().unwrap();
    let (auth, _) = open(dir.path());
    let (token, _) = auth.create(&wanted("predict")).unwrap();
    let caller = auth.caller(Some(&key(&token))).unwrap();
    auth.update_user("local", |user| user.disabled = true, |_| {}).unwrap();
    caller.is_over().await;
    assert!(auth.caller(Some(&key(&token))).is_err());
    auth.update_user("local", |user| user.disabled = false, |_| {}).unwrap();
    assert!(auth.caller(Some(&key(&token))).is_ok());
}

#[tokio::test]
async fn an_expired_token_counts_no_more() {
    let dir = TempDir::new().unwrap();
    let (auth, _) = open(dir.path());
    let now_over = NewToken { expires_in_seconds: Some(0), ..wanted("predict") };
    let (token, _) = auth.create(&now_over).unwrap();
    assert!(auth.caller(Some(&key(&token))).is_err());
    let later = NewToken { expires_in_seconds: Some(u64::MAX), ..wanted("predict") };
    let (token, _) = auth.create(&later).unwrap();
    assert!(auth.caller(Some(&key(&token))).is_ok());
    let over = Caller { expires_at: Some(0), ..Caller::new("a", Scopes::default()) };
    over.is_over().await;
}

/// OPS-11. A clock that jumps a year ahead ends what is not over yet, and one
/// that is set right again takes nothing of that along.
#[test]
fn a_clock_that_jumps_ends_no_token_for_good() {
    const YEAR: i64 = 365 * 24 * 3600;
    let caller = |expires_at| Caller { expires_at, ..Caller::new("a", Scopes::default()) };
    let (for_ever, week) = (caller(None), caller(Some(YEAR + 7 * 24 * 3600)));
    for (now, is_over) in [(YEAR, false), (2 * YEAR, true), (YEAR, false), (0, false)] {
        assert_eq!(week.has_ended(now), is_over, "{now}");
        assert!(!for_ever.has_ended(now), "{now}");
    }
    for now in [i64::MIN, i64::MAX] {
        assert!(!for_ever.has_ended(now));
    }
    assert!(caller(Some(i64::MAX)).has_ended(i64::MAX));
}
