//! A `config.yaml` without its secrets: what may leave the author's machine.
//!
//! Owns which values those are. All else of the text stays as it was written.

use super::{Config, ConfigError, Labels, Place};
use serde_saphyr::granit_parser::{Event, Parser};
use std::ops::Range;

/// Where the path of events stands.
enum Level {
    /// In a mapping, below this key; before the first, none.
    Map(Option<String>),
    /// Between a key and its value.
    Value(String),
    List,
}

impl Config {
    /// The text with the values of `checkpoints.hf_token` and of `secrets`
    /// empty. Fails where the text is no configuration, or has a secret in a
    /// form that cannot be cut out.
    pub fn without_secrets(text: &str) -> Result<String, ConfigError> {
        let mut stripped = text.to_owned();
        // From the end, so that what is ahead stays where it is.
        for range in secret_values(text).into_iter().rev() {
            stripped.replace_range(range, "\"\"");
        }
        let wanted = Self::parse_beside(text, Labels::NotThere)?.forgetful();
        match Self::parse_beside(&stripped, Labels::NotThere).map(Self::forgetful) {
            Ok(config) if config == wanted && secret_values(&stripped).is_empty() => Ok(stripped),
            _ => Err(ConfigError::Yaml {
                file: super::DOCUMENT.name.to_owned(),
                place: Place::default(),
                problem: "a token or a secret is written in a form that cannot be left out; \
                          write it on one line"
                    .to_owned(),
            }),
        }
    }

    /// Without secrets, and without what is said about them.
    fn forgetful(mut self) -> Self {
        if let Some(checkpoints) = &mut self.checkpoints {
            checkpoints.hf_token = None;
        }
        for secret in &mut self.secrets {
            secret.value = None;
        }
        self.notes.clear();
        self
    }
}

/// Where the text of each secret stands, in the order of the file.
fn secret_values(text: &str) -> Vec<Range<usize>> {
    let mut levels: Vec<Level> = Vec::new();
    let mut found = Vec::new();
    for event in Parser::new_from_str(text) {
        let Ok((event, span)) = event else { break };
        match event {
            Event::Scalar(value, ..) => {
                if let Some(Level::Map(key)) = levels.last_mut() {
                    *key = Some(value.into_owned());
                    let key = key.clone().unwrap_or_default();
                    levels.push(Level::Value(key));
                    continue;
                }
                if is_secret(&levels)
                    && !value.is_empty()
                    && let Some(range) = span.byte_range()
                    && !range.is_empty()
                {
                    found.push(range);
                }
                end_value(&mut levels);
            }
            Event::MappingStart(..) => levels.push(Level::Map(None)),
            Event::SequenceStart(..) => levels.push(Level::List),
            Event::MappingEnd | Event::SequenceEnd => {
                levels.pop();
                end_value(&mut levels);
            }
            Event::Alias(_) => end_value(&mut levels),
            _ => {}
        }
    }
    found
}

/// What was read was a key's value.
fn end_value(levels: &mut Vec<Level>) {
    if matches!(levels.last(), Some(Level::Value(_))) {
        levels.pop();
    }
}

fn is_secret(levels: &[Level]) -> bool {
    let path: Vec<&str> = levels
        .iter()
        .filter_map(|level| match level {
            Level::Value(key) => Some(key.as_str()),
            Level::List => Some("[]"),
            Level::Map(_) => None,
        })
        .collect();
    matches!(path.as_slice(), ["checkpoints", "hf_token"] | ["secrets", "[]", "value"])
}

#[cfg(test)]
mod tests {
    use super::*;

    /// PKG-20.
    #[test]
    fn secrets_are_cut_out_and_all_else_stays() {
        let text = "# mine\nmodel: {id: m}\ncheckpoints:\n  repo_id: a/b\n  hf_token: hf_CANARY # a comment\n  \
                    when: build\nsecrets:\n- id: k\n  env_var: K\n  value: 'CANARY \"2\"'\n- {id: l, \
                    env_var: L, value: CANARY3}\n- id: CANARY is no secret here\n  env_var: hf_token\n";
        let stripped = Config::without_secrets(text).unwrap();
        let expected = text
            .replace("hf_CANARY", "\"\"")
            .replace("'CANARY \"2\"'", "\"\"")
            .replace("CANARY3", "\"\"");
        assert_eq!(stripped, expected);
    }

    #[test]
    fn a_file_without_secrets_stays_as_it_is() {
        for text in ["model: {id: m}\n", "model: {id: m}\ncheckpoints: {repo_id: a, hf_token: }\n"]
        {
            assert_eq!(Config::without_secrets(text).unwrap(), text);
        }
    }

    #[test]
    fn a_secret_in_any_form_is_cut_out_or_refused() {
        for value in
            ["|\n    CANARY", ">-\n    CANARY\n", "\"CANARY\"", "'CANARY'", "CANARY\n   CANARY"]
        {
            let text =
                format!("model: {{id: m}}\ncheckpoints:\n  hf_token: {value}\n  repo_id: a/b\n");
            match Config::without_secrets(&text) {
                Ok(stripped) => assert!(!stripped.contains("CANARY"), "{stripped}"),
                Err(refused) => assert!(!refused.to_string().contains("CANARY"), "{refused}"),
            }
        }
    }
}
