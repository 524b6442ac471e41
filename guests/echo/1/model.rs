//! Gives back what it gets: the simplest model that uses all of a call.
//!
//! `predict` returns every part as it came. `generate` sends a text word by
//! word, with its white space kept, so that the pieces joined are the text;
//! the parameter `chunk` sets the number of words to a piece. `stream` answers
//! each message before it reads the next. Parameters come back in `info`.

use ringfence_guest::{Error, Input, Message, Model, Output, Outputs, Params, Requests};

struct Echo;

impl Model for Echo {
    fn load() -> Result<Self, Error> {
        Ok(Echo)
    }

    fn predict(&self, input: Input, params: &Params) -> Result<Output, Error> {
        let output = Output::from_parts(input.parts);
        Ok(if params.as_map().is_empty() {
            output
        } else {
            output.with_info("params", params.as_map().clone())
        })
    }

    fn generate(&self, input: Input, params: &Params, outputs: &mut Outputs) -> Result<(), Error> {
        let words = params.usize("chunk")?.unwrap_or(1);
        if words == 0 {
            return Err(Error::invalid_argument(
                "parameter `chunk`: expected a whole number from 1 up, got 0",
            ));
        }
        for piece in pieces(input.text()?, words) {
            outputs.send(piece)?;
        }
        Ok(())
    }

    fn stream(&self, requests: &mut Requests, outputs: &mut Outputs) -> Result<(), Error> {
        for message in requests {
            let Message { input, params } = message?;
            outputs.send(self.predict(input, &params)?)?;
        }
        Ok(())
    }
}

/// Cuts before every `words`-th word; white space stays with the word before
/// it, or with the first if it leads.
fn pieces(text: &str, words: usize) -> Vec<&str> {
    let mut pieces = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        let (piece, after) = rest.split_at(end_of(rest, words));
        pieces.push(piece);
        rest = after;
    }
    pieces
}

/// Where the word after the first `words` begins.
fn end_of(text: &str, words: usize) -> usize {
    let mut begun = 0;
    let mut in_word = false;
    for (position, character) in text.char_indices() {
        if character.is_whitespace() {
            in_word = false;
        } else if !in_word {
            if begun == words {
                return position;
            }
            begun += 1;
            in_word = true;
        }
    }
    text.len()
}

ringfence_guest::export!(Echo);

#[cfg(test)]
mod tests {
    use ringfence_guest::Value;

    use super::*;

    #[test]
    fn pieces_joined_are_the_text() {
        let text = "  to be,\n or  not\u{a0}to be ";
        for words in 1..8 {
            assert_eq!(pieces(text, words).concat(), text);
        }
        assert_eq!(pieces("to be or not", 1), ["to ", "be ", "or ", "not"]);
        assert_eq!(pieces("to be or not", 3), ["to be or ", "not"]);
        assert_eq!(pieces("", 1), [""; 0]);
        assert_eq!(pieces("  ", 1), ["  "]);
    }

    #[test]
    fn every_kind_of_part_comes_back() {
        let input = Input::of(["look".into(), Value::Image(vec![1, 2]), true.into()]);
        let parts = input.parts.clone();
        let output = Echo.predict(input, &Params::default()).unwrap();
        assert_eq!(output.parts, parts);
    }

    #[test]
    fn parameters_come_back_as_info() {
        let params = Params::parse(r#"{"chunk":2}"#).unwrap();
        let output = Echo.predict("hi".into(), &params).unwrap();
        assert_eq!(output, Output::text("hi").with_info("params", params.as_map().clone()));
    }

    #[test]
    fn a_chunk_of_no_words_is_refused() {
        let params = Params::parse(r#"{"chunk":0}"#).unwrap();
        let mut sent = Vec::new();
        let result = Echo.generate("hi".into(), &params, &mut Outputs::collected(&mut sent));
        assert!(result.is_err());
    }
}
