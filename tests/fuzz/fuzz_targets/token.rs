//! Any text as an `authorization`: nobody's, unless it is the one token that there is.

#![no_main]

use libfuzzer_sys::fuzz_target;
use ringfence::auth::Auth;
use ringfence::store::Store;
use std::sync::{Arc, LazyLock};

struct House {
    auth: Auth,
    token: String,
    _folder: tempfile::TempDir,
}

static HOUSE: LazyLock<House> = LazyLock::new(|| {
    let folder = tempfile::TempDir::new().unwrap();
    let (auth, first) = Auth::open(Arc::new(Store::open(folder.path()).unwrap())).unwrap();
    let token = first.unwrap().token.reveal().to_owned();
    House { auth, token, _folder: folder }
});

/// What stands for the token itself in an input, so that texts are near to good ones.
const STAND_IN: &str = "@";

fuzz_target!(|text: &str| {
    let House { auth, token, .. } = &*HOUSE;
    let text = text.replace(STAND_IN, token);
    // RFC 9110, section 11.1: the scheme's case does not matter.
    let is_it = text.trim().split_once(' ').is_some_and(|(scheme, given)| {
        ["key", "bearer"].contains(&scheme.to_ascii_lowercase().as_str()) && given.trim() == token
    });
    let caller = auth.caller(Some(&text));
    assert_eq!(caller.is_ok(), is_it, "{:?}", text.replace(token.as_str(), STAND_IN));
    if let Err(refused) = caller {
        assert!(!refused.to_string().contains(token.as_str()), "a refusal tells the token");
    }
});
