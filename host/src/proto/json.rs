//! JSON and the wire's `google.protobuf.Struct`, either way.
//!
//! The wire has no whole numbers, only doubles: what is whole goes back as an
//! integer, since models ask for integers.

use prost_types::value::Kind;
use prost_types::{ListValue, Struct, Value as ProtoValue};
use serde_json::{Map, Number, Value};

/// The largest whole number up to which a double holds every one: 2^53.
const EXACT_MAX: f64 = 9_007_199_254_740_992.0;

/// A number that JSON cannot say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a number is not finite, which JSON cannot say")]
pub struct NotFinite;

/// A JSON object as the wire has it.
pub fn to_struct(fields: Map<String, Value>) -> Struct {
    Struct { fields: fields.into_iter().map(|(key, value)| (key, to_value(value))).collect() }
}

/// The key that clients wrap a list under: the wire has no bare ones.
pub const LIST_KEY: &str = "_list";

/// An object, or a list wrapped as clients do; nothing for a scalar.
pub fn to_wrapped(value: Value) -> Option<Struct> {
    match value {
        Value::Object(fields) => Some(to_struct(fields)),
        list @ Value::Array(_) => {
            Some(Struct { fields: [(LIST_KEY.to_owned(), to_value(list))].into() })
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => None,
    }
}

/// A JSON value as the wire has it. Numbers beyond 2^53 lose their last digits.
pub fn to_value(value: Value) -> ProtoValue {
    let kind = match value {
        Value::Null => Kind::NullValue(0),
        Value::Bool(boolean) => Kind::BoolValue(boolean),
        Value::Number(number) => Kind::NumberValue(number.as_f64().unwrap_or_default()),
        Value::String(text) => Kind::StringValue(text),
        Value::Array(values) => {
            Kind::ListValue(ListValue { values: values.into_iter().map(to_value).collect() })
        }
        Value::Object(fields) => Kind::StructValue(to_struct(fields)),
    };
    ProtoValue { kind: Some(kind) }
}

/// The wire's object as JSON.
pub fn from_struct(fields: Struct) -> Result<Map<String, Value>, NotFinite> {
    fields.fields.into_iter().map(|(key, value)| Ok((key, from_value(value)?))).collect()
}

fn from_value(value: ProtoValue) -> Result<Value, NotFinite> {
    Ok(match value.kind {
        None | Some(Kind::NullValue(_)) => Value::Null,
        Some(Kind::BoolValue(boolean)) => boolean.into(),
        Some(Kind::StringValue(text)) => text.into(),
        Some(Kind::NumberValue(number)) => from_number(number)?,
        Some(Kind::StructValue(fields)) => from_struct(fields)?.into(),
        Some(Kind::ListValue(list)) => {
            list.values.into_iter().map(from_value).collect::<Result<Vec<_>, _>>()?.into()
        }
    })
}

/// A double as JSON; what is whole becomes an integer.
pub fn from_number(number: f64) -> Result<Value, NotFinite> {
    if number.fract() == 0.0 && number.abs() <= EXACT_MAX {
        return Ok((number as i64).into());
    }
    Number::from_f64(number).map(Into::into).ok_or(NotFinite)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn there_and_back(value: Value) -> Result<Value, NotFinite> {
        from_value(to_value(value))
    }

    #[test]
    fn whole_numbers_lose_their_fraction_and_others_keep_it() {
        for value in [json!(20), json!(-3), json!(0.5), json!(1e300)] {
            assert_eq!(there_and_back(value.clone()), Ok(value));
        }
        assert_eq!(from_value(ProtoValue { kind: Some(Kind::NumberValue(20.0)) }), Ok(json!(20)));
    }

    #[test]
    fn what_json_cannot_say_is_refused_wherever_it_lies() {
        let nan = ProtoValue { kind: Some(Kind::NumberValue(f64::NAN)) };
        let list = Kind::ListValue(ListValue { values: vec![nan] });
        let fields = Struct { fields: [("t".into(), ProtoValue { kind: Some(list) })].into() };
        assert_eq!(from_struct(fields), Err(NotFinite));
    }

    #[test]
    fn nested_values_come_back_as_they_were() {
        let value = json!({ "a": [1, "two", null, { "b": true }], "c": {} });
        assert_eq!(there_and_back(value.clone()), Ok(value));
    }
}
