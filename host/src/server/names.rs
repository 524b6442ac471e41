//! Who and what a request names.

use super::status::Outcome;
use crate::package::config::ModelName;
use crate::proto::clarifai::api;

/// The word by which a client means the user of its own token.
const ME: &str = "me";

/// The app of a client that names none.
const APP_DEFAULT: &str = "main";

/// The user that a request names, `me` and nothing being the caller.
pub(crate) fn user_of<'a>(set: &'a Option<api::UserAppIdSet>, caller: &'a str) -> &'a str {
    match set.as_ref().map(|set| set.user_id.as_str()) {
        None | Some("" | ME) => caller,
        Some(user) => user,
    }
}

/// The app that a request names.
pub(crate) fn app_of(set: &Option<api::UserAppIdSet>) -> &str {
    match set.as_ref().map(|set| set.app_id.as_str()) {
        None | Some("") => APP_DEFAULT,
        Some(app) => app,
    }
}

/// The model that a request names. A name that no model can have reads as a
/// model that is not there.
pub(crate) fn model_name(
    set: &Option<api::UserAppIdSet>,
    model: &str,
    caller: &str,
) -> Result<ModelName, Outcome> {
    name_of_parts(user_of(set, caller), app_of(set), model, caller)
}

/// The model of these parts; the caller's own and `main` where they are absent.
pub(crate) fn name_of_parts(
    user: &str,
    app: &str,
    model: &str,
    caller: &str,
) -> Result<ModelName, Outcome> {
    if model.is_empty() {
        return Err(Outcome::bad_request("the request names no model; set model_id"));
    }
    let user = if user.is_empty() { caller } else { user };
    let app = if app.is_empty() { APP_DEFAULT } else { app };
    ModelName::new(user, app, model)
        .map_err(|_| Outcome::from(crate::deploy::LeaseError::NoSuchModel))
}
