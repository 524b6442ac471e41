//! Calls that run: who made them, of what, and the way to end them.

use crate::auth::{Caller, Scope};
use crate::call::Function;
use crate::package::config::ModelName;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;
use tokio_util::sync::CancellationToken;

/// A call that runs.
#[derive(Debug, Clone)]
pub(crate) struct RunningCall {
    pub(crate) id: String,
    pub(crate) user_id: String,
    pub(crate) model: ModelName,
    pub(crate) version: String,
    pub(crate) function: Function,
    pub(crate) started_at: Instant,
    ended: CancellationToken,
}

/// Every call that runs. There are no more than places of models.
#[derive(Debug, Default)]
pub struct RunningCalls(Mutex<HashMap<String, RunningCall>>);

/// A call is among them as long as this lives.
#[derive(Debug)]
pub(crate) struct Running {
    calls: Arc<RunningCalls>,
    id: String,
    ended: CancellationToken,
}

impl Running {
    /// Cancelled when somebody ends the call, or its token counts no more.
    pub(crate) fn ended(&self) -> &CancellationToken {
        &self.ended
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.calls.lock().remove(&self.id);
    }
}

impl RunningCalls {
    /// Notes a call.
    pub(crate) fn begin(
        self: &Arc<Self>,
        id: &str,
        caller: &Caller,
        model: &ModelName,
        version: &str,
        function: Function,
    ) -> Running {
        let ended = caller.bound();
        let call = RunningCall {
            id: id.to_owned(),
            user_id: caller.user_id().to_owned(),
            model: model.clone(),
            version: version.to_owned(),
            function,
            started_at: Instant::now(),
            ended: ended.clone(),
        };
        self.lock().insert(id.to_owned(), call);
        Running { calls: self.clone(), id: id.to_owned(), ended }
    }

    /// Those that the caller may see, the oldest first.
    pub(crate) fn list(&self, caller: &Caller) -> Vec<RunningCall> {
        let calls = self.lock();
        let seen = calls.values().filter(|call| sees(caller, call) && !call.ended.is_cancelled());
        let mut seen: Vec<_> = seen.cloned().collect();
        seen.sort_by_key(|call| call.started_at);
        seen
    }

    /// Ends one that the caller may see; whether there is such a one.
    pub(crate) fn cancel(&self, caller: &Caller, id: &str) -> bool {
        let calls = self.lock();
        let found = calls.get(id).filter(|call| sees(caller, call));
        found.inspect(|call| call.ended.cancel()).is_some()
    }

    /// Ends all of a model; how many there were.
    pub(crate) fn cancel_all_of(&self, model: &ModelName) -> u64 {
        let calls = self.lock();
        let of_model = calls.values().filter(|call| call.model == *model);
        of_model.inspect(|call| call.ended.cancel()).count() as u64
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<String, RunningCall>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whoever made it, whose model it is, and the operator.
fn sees(caller: &Caller, call: &RunningCall) -> bool {
    call.user_id == caller.user_id()
        || call.model.user_id() == caller.user_id()
        || caller.may(Scope::Admin)
}
