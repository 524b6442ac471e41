//! Wants to open a connection, so the component imports `wasi:sockets` (FS-01).
//!
//! Expected: the upload is refused, and the refusal names `wasi:sockets`.

use std::net::TcpStream;

use ringfence_guest::{Error, Input, Model, Output, Params};

struct Attack;

impl Model for Attack {
    fn load() -> Result<Self, Error> {
        Ok(Attack)
    }

    fn predict(&self, _input: Input, _params: &Params) -> Result<Output, Error> {
        let connected = TcpStream::connect("127.0.0.1:80");
        Ok(Output::text(format!("{connected:?}")))
    }
}

ringfence_guest::export!(Attack);
