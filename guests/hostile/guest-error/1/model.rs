//! Returns errors of its own.
//!
//! The parameter `code` chooses one of the five codes by its name in the
//! world, `failed` by default. `message` chooses `plain` (the default), `long`
//! (2 MiB) or `control` (escape sequences and line breaks, to forge log lines
//! and colour terminals). `after` is the number of outputs that `generate`
//! sends before it fails. `whole` fails the call instead of each input.
//!
//! Expected: GUEST_ERROR with the status of the code; long messages are cut
//! and control characters removed or escaped.

use ringfence_guest::{Error, ErrorCode, Input, Model, Output, Outputs, Params};

struct Attack;

impl Model for Attack {
    fn load() -> Result<Self, Error> {
        Ok(Attack)
    }

    fn predict(&self, _input: Input, params: &Params) -> Result<Output, Error> {
        Err(chosen(params)?)
    }

    fn predict_batch(
        &self,
        inputs: Vec<Input>,
        params: &Params,
    ) -> Result<Vec<Result<Output, Error>>, Error> {
        let error = chosen(params)?;
        if params.bool("whole")?.unwrap_or(false) {
            return Err(error);
        }
        Ok(inputs.iter().map(|_| Err(error.clone())).collect())
    }

    fn generate(&self, _input: Input, params: &Params, outputs: &mut Outputs) -> Result<(), Error> {
        for number in 0..params.u32("after")?.unwrap_or(0) {
            outputs.send(number.to_string())?;
        }
        Err(chosen(params)?)
    }
}

fn chosen(params: &Params) -> Result<Error, Error> {
    let code = match params.str("code")?.unwrap_or("failed") {
        "invalid-argument" => ErrorCode::InvalidArgument,
        "out-of-range" => ErrorCode::OutOfRange,
        "failed-precondition" => ErrorCode::FailedPrecondition,
        "unsupported" => ErrorCode::Unsupported,
        "failed" => ErrorCode::Failed,
        other => {
            return Err(Error::invalid_argument(format!("no such code: `{other}`")));
        }
    };
    let message = match params.str("message")?.unwrap_or("plain") {
        "plain" => "the model says no".to_string(),
        "long" => "no ".repeat((2 << 20) / 3),
        "control" => "no\u{1b}[31m\r\nERROR forged line\0\u{202e}".to_string(),
        other => {
            return Err(Error::invalid_argument(format!("no such message: `{other}`")));
        }
    };
    Ok(Error::new(code, message).with_info("asked", true))
}

ringfence_guest::export!(Attack);
