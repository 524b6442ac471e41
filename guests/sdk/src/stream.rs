//! The two ends of a call: what the caller sends and what is sent back.

use crate::error::Error;
use crate::input::Input;
use crate::output::Output;
use crate::params::Params;
use crate::raw::ringfence::model::{streams, types};

/// Where [`generate`](crate::Model::generate) and
/// [`stream`](crate::Model::stream) send their outputs. Borrowed for one call.
pub struct Outputs<'call> {
    to: To<'call>,
}

enum To<'call> {
    Host(&'call streams::Sink),
    Collected(&'call mut Vec<Output>),
}

impl<'call> Outputs<'call> {
    /// Outputs that are kept instead of sent, for tests.
    pub fn collected(outputs: &'call mut Vec<Output>) -> Self {
        Self { to: To::Collected(outputs) }
    }

    /// Sends one output to the caller and waits while the caller is slow.
    /// Text alone may be given as it is.
    ///
    /// Fails once the caller has gone or the outputs exceed their limit; a
    /// model passes that on with `?`, since nobody reads what follows.
    pub fn send(&mut self, output: impl Into<Output>) -> Result<(), Error> {
        let output = output.into();
        match &mut self.to {
            To::Host(sink) => crate::host::send(sink, output),
            To::Collected(outputs) => {
                outputs.push(output);
                Ok(())
            }
        }
    }

    #[cfg_attr(not(target_family = "wasm"), expect(dead_code, reason = "only a host has sinks"))]
    pub(crate) fn host(sink: &'call streams::Sink) -> Self {
        Self { to: To::Host(sink) }
    }
}

/// One message of a stream.
#[derive(Clone, Debug, PartialEq)]
pub struct Message {
    /// What was sent.
    pub input: Input,
    /// The parameters that came with it.
    pub params: Params,
}

/// The messages that the caller of [`stream`](crate::Model::stream) sends: an
/// iterator that waits for the next one and ends after the last. Borrowed for
/// one call.
pub struct Requests<'call> {
    from: From<'call>,
    methods: Declaration,
}

enum From<'call> {
    Host(&'call streams::Source),
    Given(std::vec::IntoIter<Message>),
}

impl Requests<'static> {
    /// Messages that are known beforehand, for tests.
    pub fn given(messages: Vec<Message>) -> Self {
        Self { from: From::Given(messages.into_iter()), methods: Declaration::Declared }
    }
}

impl<'call> Requests<'call> {
    #[cfg_attr(not(target_family = "wasm"), expect(dead_code, reason = "only a host has sources"))]
    pub(crate) fn host(source: &'call streams::Source, methods: Declaration) -> Self {
        Self { from: From::Host(source), methods }
    }
}

impl Iterator for Requests<'_> {
    type Item = Result<Message, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        match &mut self.from {
            From::Host(source) => Some(one(crate::host::next(source)?, self.methods)),
            From::Given(messages) => messages.next().map(Ok),
        }
    }
}

/// Whether a model has typed methods.
#[derive(Clone, Copy)]
pub(crate) enum Declaration {
    Declared,
    None,
}

impl Declaration {
    /// Reads what [`crate::Model::methods`] returned.
    pub(crate) fn of(signatures: &str) -> Self {
        match signatures.trim() {
            "" | "[]" => Declaration::None,
            _ => Declaration::Declared,
        }
    }
}

/// Takes a request of any number of inputs apart.
pub(crate) fn many(
    request: types::Request,
    methods: Declaration,
) -> Result<(Vec<Input>, Params), Error> {
    let params = Params::parse(&request.params)?;
    let method = request.method;
    match methods {
        Declaration::None if !method.is_empty() => {
            return Err(Error::unsupported(format!(
                "this model has no typed methods, so no `{method}`"
            )));
        }
        Declaration::None | Declaration::Declared => {}
    }
    let inputs =
        request.inputs.into_iter().map(|input| Input::from_raw(input, method.clone())).collect();
    Ok((inputs, params))
}

/// Takes a request of exactly one input apart.
pub(crate) fn one(request: types::Request, methods: Declaration) -> Result<Message, Error> {
    let (mut inputs, params) = many(request, methods)?;
    match (inputs.pop(), inputs.len()) {
        (Some(input), 0) => Ok(Message { input, params }),
        (None, _) => Err(Error::invalid_argument("expected one input, got none")),
        (Some(_), others) => {
            Err(Error::invalid_argument(format!("expected one input, got {}", others + 1)))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ErrorCode, Part};

    fn request(method: &str, texts: &[&str]) -> types::Request {
        types::Request {
            method: method.into(),
            inputs: texts
                .iter()
                .map(|text| types::Input { id: "1".into(), parts: vec![Part::new("text", *text)] })
                .collect(),
            params: String::new(),
        }
    }

    #[test]
    fn a_stream_message_has_exactly_one_input() {
        let message = one(request("", &["hi"]), Declaration::None).unwrap();
        assert_eq!(message.input.text(), Ok("hi"));
        for texts in [&[][..], &["a", "b"][..]] {
            let error = one(request("", texts), Declaration::None).unwrap_err();
            assert_eq!(error.code(), ErrorCode::InvalidArgument);
        }
    }

    #[test]
    fn a_model_without_methods_refuses_a_method() {
        let error = many(request("translate", &["hi"]), Declaration::of("[]")).unwrap_err();
        assert_eq!(error.code(), ErrorCode::Unsupported);
        let (inputs, _) =
            many(request("translate", &["hi"]), Declaration::of(r#"[{"name":"translate"}]"#))
                .unwrap();
        assert_eq!(inputs.first().unwrap().method, "translate");
    }
}
