//! A package is tried out before it is kept: a replica of it loads the model, and
//! answers the example that came with it.

use crate::call::{Deadline, End, Event, Function, Methods, Origin, Output, Request};
use crate::package::Package;
use crate::worker::Worker;
use std::path::Path;
use tokio_util::sync::CancellationToken;

/// Reads what a package is to be tried with: the folder that it is in, and the methods
/// that it says it has. The error is for whoever uploads.
pub type Examples = fn(&Path, &Package, &Methods) -> Result<Example, String>;

/// What a package is tried with.
pub enum Example {
    /// There is none.
    None,
    /// It fits no method.
    Unfit,
    /// A call.
    Call {
        /// What is called.
        name: String,
        /// Which function that is.
        function: Function,
        /// What it is asked.
        request: Request,
        /// Whether an output could be given to a client; the error says why not.
        fits: Box<dyn Fn(Output) -> Result<(), String> + Send>,
    },
}

impl std::fmt::Debug for Example {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::None => "None",
            Self::Unfit => "Unfit",
            Self::Call { .. } => "Call",
        })
    }
}

/// Tries a package in a replica of it. Tells what happens, and returns the typed
/// methods as the guest declares them, or why it is refused.
pub(super) async fn try_out(
    worker: &Worker,
    example: impl FnOnce(&Methods) -> Result<Example, String>,
    tell: impl Fn(&str),
) -> Result<String, String> {
    let methods = worker.methods().map_err(|unknown| unknown.why.clone())?;
    let loaded = worker.loaded();
    let loaded = loaded.map_err(|verdict| format!("load-model failed: {}", verdict.end))?;
    let (wall, fuel) = (loaded.wall.as_millis(), loaded.receipt.fuel);
    tell(&format!("load-model took {wall} ms and {fuel} fuel"));
    match example(methods)? {
        Example::None => tell("there is no example.* to try the model with"),
        Example::Unfit => tell("the example fits no method; nothing was called"),
        Example::Call { name, function, request, fits } => {
            call(worker, function, request, fits)
                .await
                .map_err(|why| format!("{name} failed on the example: {why}"))?;
            tell(&format!("{name} has answered the example"));
        }
    }
    Ok(methods.declared().to_owned())
}

async fn call(
    worker: &Worker,
    function: Function,
    request: Request,
    fits: impl Fn(Output) -> Result<(), String>,
) -> Result<(), String> {
    let deadline = Deadline::after(worker.limits().call_timeout);
    let never = CancellationToken::new();
    let (inputs, mut outputs) =
        worker.call(&never, function, Origin::from("example"), deadline, ());
    inputs.send(request).await.map_err(|error| error.to_string())?;
    drop(inputs);
    loop {
        match outputs.next().await {
            Some(Event::Output(output)) => fits(output)?,
            Some(Event::InputFailed(error)) => return Err(error.to_string()),
            Some(Event::End(verdict)) => {
                return match verdict.end {
                    End::Done => Ok(()),
                    end => Err(end.to_string()),
                };
            }
            None => return Err("it ended without a verdict".to_owned()),
        }
    }
}
