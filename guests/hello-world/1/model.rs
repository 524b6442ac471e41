//! A port of a Python model folder: text comes back with random letters at its
//! end. The section *Porting* of `guests/README.md` sets the two side by side.

use ringfence_guest::random::Random;
use ringfence_guest::{
    Argument, Error, Input, Message, Methods, Model, Output, Outputs, Params, Requests, Type, arg,
};

struct HelloWorld;

impl Model for HelloWorld {
    fn methods() -> String {
        Methods::new()
            .unary("predict", [arg("prompt", Type::Str), number_of_letters()], Type::Str)
            .generator(
                "generate",
                [arg("prompt", Type::Str).default(""), number_of_letters()],
                Type::Str,
            )
            // Clients know the conversation by this name, since the class has it.
            .stream("s", arg("input_iterator", Type::Str), [number_of_letters()], Type::Str)
            .to_string()
    }

    fn load() -> Result<Self, Error> {
        Ok(HelloWorld)
    }

    fn predict(&self, input: Input, _params: &Params) -> Result<Output, Error> {
        let text = input.part("prompt")?.text()?;
        let count = input.part("number_of_letters")?.integer()?;
        Ok(Output::returned(with_letters(text, count, &mut Random::fresh()?)))
    }

    fn generate(&self, input: Input, _params: &Params, outputs: &mut Outputs) -> Result<(), Error> {
        let text = input.part("prompt")?.text()?;
        let count = input.part("number_of_letters")?.integer()?;
        let mut random = Random::fresh()?;
        for piece in 0..10 {
            let answer = with_letters(&format!("{piece}-{text}"), count, &mut random);
            outputs.send(Output::returned(answer))?;
        }
        Ok(())
    }

    fn stream(&self, requests: &mut Requests, outputs: &mut Outputs) -> Result<(), Error> {
        let mut random = Random::fresh()?;
        let mut count = 0;
        for message in requests {
            let Message { input, .. } = message?;
            // Only the first message has the arguments that are not streamed.
            if let Some(part) = input.get("number_of_letters") {
                count = part.integer()?;
            }
            let text = input.part("input_iterator")?.text()?;
            outputs.send(Output::returned(with_letters(text, count, &mut random)))?;
        }
        Ok(())
    }
}

fn number_of_letters() -> Argument {
    arg("number_of_letters", Type::Int).default(3).describe("how many letters follow the text")
}

/// `text`, a dash, `count` letters from a to z in either case, a line's end. A
/// count below zero is none, as it is in Python.
fn with_letters(text: &str, count: i64, random: &mut Random) -> String {
    let mut answer = format!("{text}-");
    for _ in 0..count {
        let letter = b'a' + (random.next_u64() % 26) as u8;
        let upper = random.next_u64().is_multiple_of(2);
        answer.push(char::from(if upper { letter.to_ascii_uppercase() } else { letter }));
    }
    answer + "\n"
}

ringfence_guest::export!(HelloWorld);
