//! Returns outputs that break the rules of the world. The parameter `case`
//! chooses: `info` (not JSON, the default), `json` (a json part that is not),
//! `ndarray` (bytes that do not match the shape), `dtype` (an unknown element
//! type), `deep` (a name of 100,000 segments), `sparse` (a list with only
//! element 4,000,000,000), `conflict` (a name that is both a value and a list),
//! `twice` (one name twice), `name` (control characters in a name) or `nan`
//! (scores that are not numbers).
//!
//! Expected: `nan` and `name` reach the caller cleaned or as they are; the
//! others are reported as the model's failure (GUEST_ERROR, code failed) and
//! cost the host neither its stack nor memory beyond the output.

use ringfence_guest::raw::exports::ringfence::model::runner;
use ringfence_guest::raw::ringfence::model::{streams, types};
use ringfence_guest::{Concept, Ndarray, Params, Part, Value};

struct Attack;

impl runner::Guest for Attack {
    fn methods() -> String {
        String::new()
    }

    fn load_model() -> Result<(), types::Error> {
        Ok(())
    }

    fn predict(
        request: types::Request,
    ) -> Result<Vec<Result<types::Output, types::Error>>, types::Error> {
        let output = chosen(&request.params)?;
        Ok(request.inputs.iter().map(|_| Ok(output.clone())).collect())
    }

    fn generate(request: types::Request, outputs: &streams::Sink) -> Result<(), types::Error> {
        outputs.send(&chosen(&request.params)?)
    }

    fn stream(requests: &streams::Source, outputs: &streams::Sink) -> Result<(), types::Error> {
        while let Some(request) = requests.next() {
            outputs.send(&chosen(&request.params)?)?;
        }
        Ok(())
    }
}

fn chosen(params: &str) -> Result<types::Output, types::Error> {
    let params = Params::parse(params).map_err(|error| invalid(error.message()))?;
    let case = params.str("case").map_err(|error| invalid(error.message()))?;
    let mut info = String::new();
    let parts = match case.unwrap_or("info") {
        "info" => {
            info = "[\"no object".into();
            vec![Part::new("text", "x")]
        }
        "json" => vec![Part::new("json", Value::Json("{\"open\":".into()))],
        "ndarray" => vec![Part::new("ndarray", ndarray("float32", 3))],
        "dtype" => vec![Part::new("ndarray", ndarray("__import__('os')", 4))],
        "deep" => vec![Part::new(vec!["a"; 100_000].join("/"), "x")],
        "sparse" => vec![Part::new("list/4000000000", "x")],
        "conflict" => vec![Part::new("a", "x"), Part::new("a/0", "y")],
        "twice" => vec![Part::new("text", "x"), Part::new("text", "y")],
        "name" => vec![Part::new("te\u{1b}[2J\0xt", "x")],
        "nan" => vec![Part::new(
            "concepts",
            vec![Concept::new("a", f32::NAN), Concept::new("b", f32::INFINITY)],
        )],
        other => return Err(invalid(&format!("no such case: `{other}`"))),
    };
    Ok(types::Output { parts, usage: None, info })
}

fn ndarray(dtype: &str, bytes: usize) -> Ndarray {
    Ndarray { dtype: dtype.into(), shape: vec![u32::MAX, u32::MAX], data: vec![0; bytes] }
}

fn invalid(message: &str) -> types::Error {
    types::Error {
        code: types::ErrorCode::InvalidArgument,
        message: message.into(),
        info: String::new(),
    }
}

ringfence_guest::raw::export!(Attack with_types_in ringfence_guest::raw);
