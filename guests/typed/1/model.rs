//! Methods with named, typed arguments, one of each form.

use ringfence_guest::{
    Error, Input, Message, Methods, Model, Output, Outputs, Params, Requests, Type, arg,
};

struct Typed;

impl Model for Typed {
    fn methods() -> String {
        let person = Type::Fields(vec![("name", Type::Str), ("age", Type::Int)]);
        Methods::new()
            .unary(
                "predict",
                [
                    arg("prompt", Type::Str).describe("what is repeated"),
                    arg("times", Type::Int).default(2),
                    arg("loud", Type::Bool).default(false),
                    arg("end", Type::Str).default("."),
                ],
                Type::Str,
            )
            .unary("sum", [arg("numbers", Type::Int.list())], Type::Int)
            .unary("older", [arg("person", person.clone()), arg("years", Type::Int)], person)
            .unary(
                "swap",
                [arg("pair", Type::Tuple(vec![Type::Str, Type::Float]))],
                Type::Tuple(vec![Type::Float, Type::Str]),
            )
            .generator("count", [arg("to", Type::Int)], Type::Int)
            .stream(
                "stream",
                arg("word", Type::Str),
                [arg("prefix", Type::Str).default("> ")],
                Type::Str,
            )
            .to_string()
    }

    fn load() -> Result<Self, Error> {
        Ok(Typed)
    }

    fn predict(&self, input: Input, _params: &Params) -> Result<Output, Error> {
        match input.method.as_str() {
            "predict" => {
                let times = usize::try_from(input.part("times")?.integer()?)
                    .ok()
                    .filter(|times| *times <= 1000)
                    .ok_or_else(|| Error::out_of_range("`times` goes from 0 to 1000"))?;
                let text = input.part("prompt")?.text()?.repeat(times);
                let text = if input.part("loud")?.boolean()? { text.to_uppercase() } else { text };
                Ok(Output::returned(text + input.part("end")?.text()?))
            }
            "sum" => {
                let numbers = input.parts.iter().map(|part| part.integer());
                Ok(Output::returned(numbers.sum::<Result<i64, Error>>()?))
            }
            "older" => {
                let years = input.part("years")?.integer()?;
                let name = input.part("person/name")?.text()?.to_owned();
                let age = input.part("person/age")?.integer()? + years;
                Ok(Output::from_parts(vec![])
                    .with_part("return/name", name)
                    .with_part("return/age", age))
            }
            "swap" => {
                let text = input.part("pair/0")?.text()?.to_owned();
                let number = input.part("pair/1")?.float()?;
                Ok(Output::from_parts(vec![])
                    .with_part("return/0", number)
                    .with_part("return/1", text))
            }
            other => Err(Error::unsupported(format!("there is no method {other}"))),
        }
    }

    fn generate(&self, input: Input, _params: &Params, outputs: &mut Outputs) -> Result<(), Error> {
        for number in 1..=input.part("to")?.integer()? {
            outputs.send(Output::returned(number))?;
        }
        Ok(())
    }

    fn stream(&self, requests: &mut Requests, outputs: &mut Outputs) -> Result<(), Error> {
        let mut prefix = String::new();
        for message in requests {
            let Message { input, .. } = message?;
            if let Some(part) = input.get("prefix") {
                prefix = part.text()?.to_owned();
            }
            outputs.send(Output::returned(format!("{prefix}{}", input.part("word")?.text()?)))?;
        }
        Ok(())
    }
}

ringfence_guest::export!(Typed);
