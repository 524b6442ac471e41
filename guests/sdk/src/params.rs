//! The inference parameters of a call.

use serde_json::{Map, Value as Json};

use crate::error::Error;

/// The inference parameters of a call: a JSON object with typed accessors.
///
/// Each accessor answers `None` for a parameter that is absent or null, and
/// otherwise an invalid-argument error that names the parameter, what was
/// expected and what was given. Numbers come over the wire as doubles, so
/// `3.0` is a whole number.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Params {
    map: Map<String, Json>,
}

impl Params {
    /// Reads a JSON object; "" is an empty one.
    pub fn parse(text: &str) -> Result<Self, Error> {
        if text.is_empty() {
            return Ok(Self::default());
        }
        match serde_json::from_str(text) {
            Ok(Json::Object(map)) => Ok(Self { map }),
            Ok(other) => Err(Error::invalid_argument(format!(
                "the parameters must be a JSON object, got {}",
                describe(&other)
            ))),
            Err(error) => {
                Err(Error::invalid_argument(format!("the parameters are not JSON: {error}")))
            }
        }
    }

    /// Any parameter as it came.
    pub fn get(&self, key: &str) -> Option<&Json> {
        self.map.get(key).filter(|value| !value.is_null())
    }

    /// All parameters as they came.
    pub fn as_map(&self) -> &Map<String, Json> {
        &self.map
    }

    /// A number.
    pub fn f64(&self, key: &str) -> Result<Option<f64>, Error> {
        self.typed(key, "a number", Json::as_f64)
    }

    /// A number, rounded to single precision.
    pub fn f32(&self, key: &str) -> Result<Option<f32>, Error> {
        self.typed(key, "a number", |value| {
            let number = value.as_f64()? as f32;
            number.is_finite().then_some(number)
        })
    }

    /// A whole number.
    pub fn i64(&self, key: &str) -> Result<Option<i64>, Error> {
        self.typed(key, "a whole number", whole)
    }

    /// A whole number from 0 to 4294967295.
    pub fn u32(&self, key: &str) -> Result<Option<u32>, Error> {
        self.typed(key, "a whole number from 0 to 4294967295", |value| {
            u32::try_from(whole(value)?).ok()
        })
    }

    /// A whole number from 0 up, for lengths and counts.
    pub fn usize(&self, key: &str) -> Result<Option<usize>, Error> {
        Ok(self.u32(key)?.map(|number| number as usize))
    }

    /// A whole number from 0 up, for seeds.
    pub fn u64(&self, key: &str) -> Result<Option<u64>, Error> {
        self.typed(key, "a whole number from 0 up", |value| {
            value.as_u64().or_else(|| u64::try_from(whole(value)?).ok())
        })
    }

    /// A truth value.
    pub fn bool(&self, key: &str) -> Result<Option<bool>, Error> {
        self.typed(key, "true or false", Json::as_bool)
    }

    /// A string.
    pub fn str(&self, key: &str) -> Result<Option<&str>, Error> {
        self.typed(key, "a string", |value| value.as_str())
    }

    /// A list of strings; one string counts as a list of one.
    pub fn strs(&self, key: &str) -> Result<Option<Vec<&str>>, Error> {
        self.typed(key, "a list of strings", |value| match value {
            Json::String(one) => Some(vec![one.as_str()]),
            Json::Array(many) => many.iter().map(Json::as_str).collect(),
            _ => None,
        })
    }

    fn typed<'a, T>(
        &'a self,
        key: &str,
        expected: &str,
        read: impl Fn(&'a Json) -> Option<T>,
    ) -> Result<Option<T>, Error> {
        let Some(value) = self.get(key) else {
            return Ok(None);
        };
        read(value).map(Some).ok_or_else(|| {
            Error::invalid_argument(format!(
                "parameter `{key}`: expected {expected}, got {}",
                describe(value)
            ))
        })
    }
}

/// A whole number that a double holds exactly.
fn whole(value: &Json) -> Option<i64> {
    const EXACT_MAX: f64 = 9_007_199_254_740_992.0;
    value.as_i64().or_else(|| {
        let number = value.as_f64()?;
        (number.fract() == 0.0 && number.abs() <= EXACT_MAX).then_some(number as i64)
    })
}

/// Short enough for an error message, whatever the caller sent.
fn describe(value: &Json) -> String {
    match value {
        Json::Null => "null".into(),
        Json::Bool(value) => value.to_string(),
        Json::Number(value) => value.to_string(),
        Json::String(_) => "a string".into(),
        Json::Array(_) => "a list".into(),
        Json::Object(_) => "an object".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn params(text: &str) -> Params {
        Params::parse(text).unwrap()
    }

    #[test]
    fn nothing_is_an_empty_object() {
        assert_eq!(params(""), Params::default());
        assert_eq!(params("{}").f32("temperature"), Ok(None));
        assert_eq!(params(r#"{"temperature":null}"#).f32("temperature"), Ok(None));
    }

    #[test]
    fn anything_but_an_object_is_refused() {
        let error = Params::parse("[1]").unwrap_err();
        assert_eq!(error.message(), "the parameters must be a JSON object, got a list");
        assert!(Params::parse("{").is_err());
    }

    #[test]
    fn whole_numbers_may_come_as_doubles() {
        let params = params(r#"{"a":3.0,"b":3,"c":3.5,"d":-1,"e":1e30,"f":5000000000}"#);
        assert_eq!(params.u32("a"), Ok(Some(3)));
        assert_eq!(params.usize("b"), Ok(Some(3)));
        assert_eq!(params.i64("d"), Ok(Some(-1)));
        assert_eq!(params.u64("f"), Ok(Some(5_000_000_000)));
        assert_eq!(
            params.u32("c").unwrap_err().message(),
            "parameter `c`: expected a whole number from 0 to 4294967295, got 3.5"
        );
        assert!(params.u32("d").is_err());
        assert!(params.u32("f").is_err());
        assert!(params.i64("e").is_err());
        assert!(params.f32("e").is_ok());
    }

    #[test]
    fn the_error_names_the_parameter_and_not_its_content() {
        let error = params(r#"{"temperature":"very hot"}"#).f32("temperature").unwrap_err();
        assert_eq!(error.code(), crate::ErrorCode::InvalidArgument);
        assert_eq!(error.message(), "parameter `temperature`: expected a number, got a string");
    }

    #[test]
    fn a_number_too_large_for_single_precision_is_refused() {
        assert!(params(r#"{"x":1e300}"#).f32("x").is_err());
        assert_eq!(params(r#"{"x":1e300}"#).f64("x"), Ok(Some(1e300)));
    }

    #[test]
    fn strings_come_one_or_many() {
        let params = params(r#"{"stop":"\n","stops":["a","b"],"bad":["a",1]}"#);
        assert_eq!(params.strs("stop"), Ok(Some(vec!["\n"])));
        assert_eq!(params.strs("stops"), Ok(Some(vec!["a", "b"])));
        assert!(params.strs("bad").is_err());
    }
}
