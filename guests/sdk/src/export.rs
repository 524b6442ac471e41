//! The glue between the world's functions and a [`Model`](crate::Model).

/// Makes a [`Model`](crate::Model) what the component exports. Once per
/// component, with the model's type.
///
/// The loaded model lives in a static of the calling crate. A panic is logged
/// through the model's log before it ends the sandbox.
#[macro_export]
macro_rules! export {
    ($model:ty) => {
        const _: () = {
            static MODEL: ::std::sync::OnceLock<$model> = ::std::sync::OnceLock::new();

            #[cfg(target_family = "wasm")]
            const _: () = {
                struct Runner;

                impl $crate::raw::exports::ringfence::model::runner::Guest for Runner {
                    fn methods() -> ::std::string::String {
                        <$model as $crate::Model>::methods()
                    }

                    fn load_model() -> $crate::__calls::Done {
                        $crate::__calls::load(&MODEL)
                    }

                    fn predict(request: $crate::__calls::Request) -> $crate::__calls::Predicted {
                        $crate::__calls::predict(&MODEL, request)
                    }

                    fn generate(
                        request: $crate::__calls::Request,
                        outputs: &$crate::__calls::Sink,
                    ) -> $crate::__calls::Done {
                        $crate::__calls::generate(&MODEL, request, outputs)
                    }

                    fn stream(
                        requests: &$crate::__calls::Source,
                        outputs: &$crate::__calls::Sink,
                    ) -> $crate::__calls::Done {
                        $crate::__calls::stream(&MODEL, requests, outputs)
                    }
                }

        $crate::raw::export!(Runner with_types_in $crate::raw);
            };

            // The checks of `load` apply on every target.
            #[cfg(not(target_family = "wasm"))]
            const _: fn() -> bool = || $crate::__calls::load(&MODEL).is_ok();
        };
    };
}

/// What the exported functions do; for the macro only.
pub mod calls {
    use std::panic;
    use std::sync::OnceLock;
    use std::sync::atomic::Ordering;

    use crate::context::Level;
    use crate::error::Error;
    use crate::model::Model;
    use crate::output::Output;
    use crate::params::Params;
    use crate::random::LOADING;
    use crate::raw::ringfence::model::types;
    use crate::stream::{Declaration, many};
    use crate::{Input, host};

    pub use crate::raw::ringfence::model::streams::{Sink, Source};
    pub use crate::raw::ringfence::model::types::Request;

    /// What most functions of the world return.
    pub type Done = Result<(), types::Error>;

    /// What `predict` of the world returns.
    pub type Predicted = Result<Vec<Result<types::Output, types::Error>>, types::Error>;

    /// `load-model`.
    pub fn load<M: Model>(model: &OnceLock<M>) -> Done {
        panic::set_hook(Box::new(|panic| {
            // One line: the place, then the message.
            let line = panic.to_string().replacen('\n', " ", 1);
            host::log(Level::Error, &line);
        }));
        LOADING.store(true, Ordering::Relaxed);
        let loaded = M::load();
        LOADING.store(false, Ordering::Relaxed);
        #[cfg(target_family = "wasm")]
        crate::standard::close();
        match model.set(loaded.map_err(Error::into_raw)?) {
            Ok(()) => Ok(()),
            Err(_) => Err(Error::failed_precondition("the model is already loaded").into_raw()),
        }
    }

    /// `predict`.
    pub fn predict<M: Model>(model: &OnceLock<M>, request: Request) -> Predicted {
        let results = loaded(model)
            .and_then(|model| {
                let (inputs, params) = many(request, methods::<M>())?;
                batch(model, inputs, &params)
            })
            .map_err(Error::into_raw)?;
        Ok(results
            .into_iter()
            .map(|result| result.map(Output::into_raw).map_err(Error::into_raw))
            .collect())
    }

    /// The world wants one result for each input, and a model that batches may
    /// get that wrong.
    pub(crate) fn batch<M: Model>(
        model: &M,
        inputs: Vec<Input>,
        params: &Params,
    ) -> Result<Vec<Result<Output, Error>>, Error> {
        let expected = inputs.len();
        let results = model.predict_batch(inputs, params)?;
        if results.len() == expected {
            Ok(results)
        } else {
            Err(Error::failed(format!(
                "predict_batch returned {} results for {expected} inputs",
                results.len()
            )))
        }
    }

    fn loaded<M>(model: &OnceLock<M>) -> Result<&M, Error> {
        model.get().ok_or_else(|| Error::failed_precondition("the model is not loaded"))
    }

    fn methods<M: Model>() -> Declaration {
        Declaration::of(&M::methods())
    }

    #[cfg(target_family = "wasm")]
    mod streaming {
        use super::*;
        use crate::stream::{Message, Outputs, Requests, one};

        /// `generate`.
        pub fn generate<M: Model>(model: &OnceLock<M>, request: Request, sink: &Sink) -> Done {
            loaded(model)
                .and_then(|model| {
                    let Message { input, params } = one(request, methods::<M>())?;
                    model.generate(input, &params, &mut Outputs::host(sink))
                })
                .map_err(Error::into_raw)
        }

        /// `stream`.
        pub fn stream<M: Model>(model: &OnceLock<M>, source: &Source, sink: &Sink) -> Done {
            loaded(model)
                .and_then(|model| {
                    let mut requests = Requests::host(source, methods::<M>());
                    model.stream(&mut requests, &mut Outputs::host(sink))
                })
                .map_err(Error::into_raw)
        }
    }

    #[cfg(target_family = "wasm")]
    pub use streaming::{generate, stream};
}

#[cfg(test)]
mod tests {
    use std::sync::OnceLock;

    use super::calls::{load, predict};
    use crate::raw::ringfence::model::types::{ErrorCode, Input as RawInput, Request};
    use crate::{Error, Input, Message, Model, Output, Outputs, Params, Part, Requests};

    /// Answers texts in capitals and refuses everything else.
    struct Loud;

    impl Model for Loud {
        fn load() -> Result<Self, Error> {
            assert!(crate::random::Random::fresh().is_err());
            Ok(Loud)
        }

        fn predict(&self, input: Input, params: &Params) -> Result<Output, Error> {
            let mark = params.str("mark")?.unwrap_or("!");
            Ok(Output::text(input.text()?.to_uppercase() + mark))
        }
    }

    crate::export!(Loud);

    fn request(parts: Vec<Part>, params: &str) -> Request {
        Request {
            method: String::new(),
            inputs: parts
                .into_iter()
                .map(|part| RawInput { id: String::new(), parts: vec![part] })
                .collect(),
            params: params.into(),
        }
    }

    fn text_of(output: &crate::raw::ringfence::model::types::Output) -> &str {
        output.parts.first().unwrap().text().unwrap()
    }

    #[test]
    fn a_failing_input_fails_alone() {
        let model = OnceLock::<Loud>::new();
        load(&model).unwrap();
        let parts = vec![Part::new("text", "a"), Part::new("integer", 1), Part::new("text", "b")];
        let results = predict(&model, request(parts, r#"{"mark":"?"}"#)).unwrap();
        let [Ok(first), Err(second), Ok(third)] = results.as_slice() else {
            panic!("{results:?}");
        };
        assert_eq!(text_of(first), "A?");
        assert_eq!(second.code, ErrorCode::InvalidArgument);
        assert_eq!(text_of(third), "B?");
    }

    #[test]
    fn bad_parameters_fail_the_call_as_a_whole() {
        let model = OnceLock::<Loud>::new();
        load(&model).unwrap();
        let error = predict(&model, request(vec![Part::new("text", "a")], "[]")).unwrap_err();
        assert_eq!(error.code, ErrorCode::InvalidArgument);
    }

    #[test]
    fn a_call_before_load_and_a_second_load_are_refused() {
        let model = OnceLock::<Loud>::new();
        let error = predict(&model, request(Vec::new(), "")).unwrap_err();
        assert_eq!(error.code, ErrorCode::FailedPrecondition);
        load(&model).unwrap();
        assert_eq!(load(&model).unwrap_err().code, ErrorCode::FailedPrecondition);
    }

    #[test]
    fn generate_and_stream_fall_back_to_predict() {
        let message = |text: &str| Message { input: text.into(), params: Params::default() };
        let mut sent = Vec::new();
        let mut requests = Requests::given(vec![message("a"), message("b")]);
        Loud.stream(&mut requests, &mut Outputs::collected(&mut sent)).unwrap();
        assert_eq!(sent, [Output::text("A!"), Output::text("B!")]);
    }

    /// Loses a result.
    struct Forgetful;

    impl Model for Forgetful {
        fn load() -> Result<Self, Error> {
            Ok(Forgetful)
        }

        fn predict(&self, _input: Input, _params: &Params) -> Result<Output, Error> {
            Ok(Output::default())
        }

        fn predict_batch(
            &self,
            _inputs: Vec<Input>,
            _params: &Params,
        ) -> Result<Vec<Result<Output, Error>>, Error> {
            Ok(Vec::new())
        }
    }

    #[test]
    fn a_batch_with_a_result_missing_is_an_error() {
        let error = super::calls::batch(&Forgetful, vec![Input::from("a")], &Params::default())
            .unwrap_err();
        assert_eq!(error.message(), "predict_batch returned 0 results for 1 inputs");
    }
}
