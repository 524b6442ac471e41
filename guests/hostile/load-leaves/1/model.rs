//! Leaves in `load-model` what its asset `how.txt` says, and goes on with it in a call:
//! things that a copy of its memory has, and things that it has not.
//!
//! Expected: the same answer whether or not its sandboxes are copies. Those that cannot be
//! are not.

use std::collections::HashMap;
use std::fs::File;
use std::io::Read;
use std::time::Instant;

use ringfence_guest::{Error, Input, Model, Output, Params, asset, info};

struct Attack {
    how: String,
    kept: Kept,
}

enum Kept {
    Nothing,
    Words(HashMap<String, usize>),
    File(File),
    Began(Instant),
    Drawn(u64),
    Bytes(Vec<u8>),
}

const HOW: &str = "/model/how.txt";

impl Model for Attack {
    #[allow(clippy::print_stdout, reason = "that is what is tested")]
    fn load() -> Result<Self, Error> {
        let how = String::from_utf8_lossy(&asset("how.txt")?).trim().to_owned();
        let kept = match how.as_str() {
            "log" => {
                info!("loads");
                Kept::Nothing
            }
            "print" => {
                println!("loads");
                eprintln_too();
                print!("no end of the line");
                Kept::Nothing
            }
            "read" => {
                std::fs::read_to_string(HOW)?;
                Kept::Nothing
            }
            "words" => Kept::Words(HashMap::from([("one".to_owned(), 1), ("two".to_owned(), 2)])),
            "file" => Kept::File(File::open(HOW)?),
            "clock" => Kept::Began(Instant::now()),
            "random" => Kept::Drawn(getrandom::u64()?),
            "large" => Kept::Bytes(vec![1; 65 << 20]),
            "load-fails" => return Err(Error::failed("it will not")),
            _ => Kept::Nothing,
        };
        Ok(Attack { how, kept })
    }

    #[allow(clippy::print_stdout, reason = "that is what is tested")]
    fn predict(&self, _input: Input, _params: &Params) -> Result<Output, Error> {
        println!("is called");
        eprintln_too();
        let read = std::fs::read_to_string(HOW)?;
        let more = match &self.kept {
            Kept::Nothing => String::new(),
            Kept::Words(words) => words.values().sum::<usize>().to_string(),
            Kept::File(file) => {
                let mut text = String::new();
                let mut file: &File = file;
                file.read_to_string(&mut text)?;
                text
            }
            Kept::Began(began) => (began.elapsed().as_secs() < 3600).to_string(),
            Kept::Bytes(bytes) => bytes.len().to_string(),
            Kept::Drawn(drawn) => (*drawn > 0).to_string(),
        };
        Ok(Output::text(format!("{} {} {}", self.how, read.trim(), more.trim()).trim()))
    }
}

#[allow(clippy::print_stderr, reason = "that is what is tested")]
fn eprintln_too() {
    eprintln!("on standard error");
}

ringfence_guest::export!(innocent::Or<Attack>);
